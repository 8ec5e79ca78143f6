import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86, qemuImg } from "../support/cli.ts";
import { startNginx } from "../support/nginx.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);
const words = (line: string): string[] => line.split(" ").filter((word) => word !== "");

/** Names by options, and as JSON; none has a blank. */
const OPTIONS = [
  "driver=qcow2,file.filename=top.qcow2", "file.filename=top.qcow2", "driver=qcow2,file.driver=file,file.filename=top.qcow2", "driver=raw,file.filename=top.qcow2",
  "driver=file,filename=top.qcow2", "driver=qcow2,file.filename=sub/over.qcow2", "driver=qcow2,file.filename=a,,b.qcow2", "driver=qcow2,file.filename=file:top.qcow2", "driver=raw,driver=qcow2,file.filename=top.qcow2",
  "driver=raw,file.filename=flat.raw,offset=512,size=1M", "driver=raw,file.filename=flat.raw,offset=1M", "driver=raw,file.filename=flat.raw,size=64k", "driver=raw,file.filename=flat.raw,offset=513,size=1M", "driver=raw,file.filename=flat.raw,offset=0",
  "driver=raw,file.filename=flat.raw,size=1000", "driver=raw,file.filename=flat.raw,size=10M", "driver=raw,file.filename=flat.raw,offset=10M", "driver=raw,file.filename=flat.raw,offset=x", "driver=raw,file.filename=flat.raw,offset=-1",
  "driver=qcow2,file.driver=raw,file.file.filename=top.qcow2", "driver=qcow2,file.driver=raw,file.offset=64k,file.file.filename=shifted", "driver=qcow2,file.driver=raw,file.offset=64k,file.file.filename=top.qcow2",
  "driver=qcow2,file.driver=qcow2,file.file.filename=nest.qcow2", "driver=qcow2,file.driver=qcow2,file.file.filename=top.qcow2",
  "driver=foo,file.filename=flat.raw", "driver=qcow2,file.driver=foo,file.filename=top.qcow2", "driver=qcow2,file.filename=gone", "driver=qcow2,file.filename=flat.raw", "driver=qcow2", "driver=qcow2,file=top.qcow2", "driver=qcow2,file.driver=file", "driver=file", "filename=top.qcow2",
  "driver=qcow2,foo=1", "driver=qcow2,file.filename=top.qcow2,foo=bar", "driver=qcow2,file.filename=top.qcow2,file.foo=bar", "driver=raw,file.filename=flat.raw,lazy-refcounts=on", "top.qcow2", "driver", ",", "x=,,,", "driver=qcow2,file.filename=",
  "driver=host_device,filename=flat.raw", "driver=qcow2,file.driver=host_device,file.filename=top.qcow2",
  "driver=qcow2,file.filename=top.qcow2,lazy-refcounts=on", "driver=qcow2,file.filename=top.qcow2,lazy-refcounts=foo", "driver=qcow2,file.filename=top.qcow2,l2-cache-size=1M,cache-size=2M", "driver=qcow2,file.filename=top.qcow2,cache.direct=off,discard=unmap,detect-zeroes=on,node-name=n",
  "driver=qcow2,file.filename=top.qcow2,discard=foo", "driver=qcow2,file.filename=top.qcow2,detect-zeroes=foo", "driver=qcow2,file.filename=top.qcow2,read-only=on", "driver=qcow2,file.filename=top.qcow2,read-only=foo", "driver=qcow2,file.filename=top.qcow2,force-share=on,file.locking=off", "driver=qcow2,file.filename=top.qcow2,file.locking=foo", "driver=qcow2,file.filename=top.qcow2,overlap-check=all,overlap-check.active-l1=on",
  "driver=qcow2,file.driver=http,file.url=xx", "driver=qcow2,file.driver=http", "driver=qcow2,file.driver=https,file.url=http://127.0.0.1:1/x", "driver=qcow2,file.driver=http,file.url=http://127.0.0.1:1/x",
];
const JSON_NAMES = [
  '{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"}}', '{"file":{"driver":"file","filename":"top.qcow2"}}', '{"file.filename":"top.qcow2"}', '{"driver":"qcow2","file.filename":"top.qcow2","file":{"driver":"file"}}', "{'driver':'qcow2','file':{'driver':'file','filename':'top.qcow2'}}",
  '{"driver":"file","filename":"top.qcow2"}', '{"driver":"raw","offset":65536,"file":{"driver":"file","filename":"flat.raw"}}', '{"driver":"raw","offset":"64k","size":65536,"file.filename":"flat.raw"}', '{"driver":"qcow2","file":{"driver":"raw","offset":65536,"file":{"driver":"file","filename":"shifted"}}}',
  '{"driver":"qcow2","file":"top.qcow2"}', '{"filename":"top.qcow2"}', "{", "[]", "{}", "", "1", "null", '{"file.filename":"top.qcow2"}x', '{"file.filename":"top.qcow2",}', '{"file.filename":["top.qcow2"]}', '{"file.filename":null}', '{"file.filename":true}', '{"file":null}',
  '{"driver":"qcow2","file.filename":"top.qcow2","lazy-refcounts":true}', '{"driver":"qcow2","file.filename":"top.qcow2","lazy-refcounts":1}', '{"driver":"qcow2","file.filename":"top.qcow2","foo":{"bar":1}}', '{"driver":"qcow2","file.filename":"\\u0074op.qcow2"}',
];
/** What a chain is opened for. */
const CHAINS = [
  "backing.driver=raw", "backing.driver=raw,backing.file.filename=base.qcow2", "backing.driver=qcow2,backing.file.filename=base.qcow2", "backing.driver=qcow2,backing.file.filename=flat.raw", "backing.file.filename=other.qcow2", "backing.driver=raw,backing.offset=64k", "backing=foo", "backing.foo=bar", "backing.file.filename=gone",
  "backing.driver=qcow2,backing.file.filename=sub/over.qcow2", "backing.driver=qcow2,backing.file.filename=sub/over.qcow2,backing.backing.driver=qcow2,backing.backing.file.filename=other.qcow2", "backing.lazy-refcounts=on",
].map((rest) => `driver=qcow2,file.filename=top.qcow2,${rest}`);

const LINES = [
  // A format named too
  'info -f qcow2 json:{"file.filename":"top.qcow2"}', 'info -f raw json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"}}', 'info -f raw json:{"driver":"file","filename":"top.qcow2"}', "info -f qcow2 --image-opts driver=qcow2,file.filename=top.qcow2", "map -f qcow2 --image-opts file.filename=top.qcow2", "check -f qcow2 --image-opts file.filename=top.qcow2", "resize -f raw --image-opts file.filename=flat.raw 7M",
  // Other names
  "info file:top.qcow2", "info file:file:top.qcow2", "map file:sub/over.qcow2", "info foo:top.qcow2", "info raw:flat.raw", "info ./a:b", "info a/c:d", "create -f raw file:x 1M", "create -f raw foo:x 1M", 'create -f raw json:{"driver":"file","filename":"x"} 1M', "create --image-opts driver=raw,file.filename=x 1M",
  "convert top.qcow2 file:x", 'convert top.qcow2 json:{"driver":"raw","file.filename":"x"}', "compare null-co:// null-co://",
  // Every verb
  "check --image-opts driver=qcow2,file.filename=top.qcow2", "check --image-opts driver=qcow2,file.filename=base.qcow2,backing.driver=raw,backing.file.filename=flat.raw", 'check json:{"driver":"qcow2","file.filename":"top.qcow2"}', "compare --image-opts driver=qcow2,file.filename=top.qcow2 file.filename=top.qcow2", "compare --image-opts driver=qcow2,file.filename=top.qcow2 driver=qcow2,file.filename=top.qcow2,backing.driver=raw", "compare -F qcow2 --image-opts driver=qcow2,file.filename=top.qcow2 file.filename=top.qcow2", "compare --image-opts file.filename=gone file.filename=top.qcow2",
  'compare json:{"driver":"qcow2","file.filename":"top.qcow2"} top.qcow2', 'compare json:{"driver":"qcow2","file.filename":"top.qcow2","backing":null} top.qcow2', "convert --image-opts driver=qcow2,file.filename=top.qcow2 x", "convert -O qcow2 --image-opts driver=raw,file.filename=flat.raw,offset=1M x", "convert --image-opts -f qcow2 driver=qcow2,file.filename=top.qcow2 x", "convert --target-image-opts top.qcow2 driver=raw,file.filename=x", "convert --target-image-opts -n -O raw top.qcow2 driver=raw,file.filename=there", "convert --target-image-opts -n top.qcow2 driver=raw,file.filename=there", "convert --target-image-opts -n top.qcow2 driver=raw,file.filename=there,offset=1M",
  'convert -n top.qcow2 json:{"driver":"raw","file.filename":"there"}', "convert --target-image-opts -n top.qcow2 driver=raw,file.filename=there,read-only=on", "convert --target-image-opts -n top.qcow2 driver=raw,file.filename=there,size=1M", "convert -n --target-image-opts top.qcow2 driver=null-co,size=20M",
  "resize --image-opts driver=raw,file.filename=there 14M", "resize --image-opts driver=raw,file.filename=there,offset=1M +1M", "resize --image-opts driver=raw,file.filename=there,offset=1M --shrink 1M", 'resize json:{"driver":"raw","file.filename":"there"} +1M', "resize --image-opts driver=raw,file.filename=there,size=1M +1M", "resize --image-opts driver=raw,file.filename=there,read-only=on +1M", "resize --image-opts driver=raw,file.filename=there,offset=0 --shrink 1M",
  // Backing files that are named so
  'create -f qcow2 -b json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}} -F qcow2 x', 'create -f qcow2 -b json:{"driver":"raw","offset":65536,"file":{"driver":"file","filename":"flat.raw"}} -F raw x', 'create -f qcow2 -b json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}} x', 'create -f qcow2 -b json:{"driver":"qcow2","file":{"driver":"file","filename":"gone"}} -F qcow2 x', 'create -f qcow2 -b json:{ -F qcow2 x', 'create -f qcow2 -u -b json:{ -F qcow2 x 1M', "create -f qcow2 -b file:base.qcow2 -F qcow2 x",
  "info --backing-chain --output=json on-json.qcow2", "map --output=json on-json.qcow2", "map --output=json sub/on-json.qcow2", "compare on-json.qcow2 base.qcow2", "map --output=json on-window.qcow2", "info --backing-chain on-window.qcow2", "map on-nothing.qcow2", "info --backing-chain on-nothing.qcow2", "map --output=json on-null.qcow2",
  // Passwords
  "info --object secret,id=a,data=x top.qcow2", "info --object secret,data=x top.qcow2", "info --object secret,id=a top.qcow2", "info --object secret,id=a,data=x,file=y top.qcow2", "info --object secret,id=a,file=gone top.qcow2", "info --object secret,id=a,file=password top.qcow2", "info --object secret,id=a,data=x,foo=y top.qcow2", "info --object secret,id=a,data=x --object secret,id=a,data=x top.qcow2", "info --object foo,id=a top.qcow2", "info --object foo top.qcow2",
  'info --object {"qom-type":"secret","id":"a","data":"x"} top.qcow2', "info --object secret,id=a,data=eA==,format=base64 top.qcow2", "info --object secret,id=a,data=%%,format=base64 top.qcow2", "info --object secret,id=a,data=x,format=foo top.qcow2", "info --object secret,id=1a,data=x top.qcow2", "create --object foo x 1M", "map --object secret,id=a,data=x --image-opts file.filename=top.qcow2,encrypt.key-secret=a",
];

function makeImages(): void {
  mkdirSync("sub");
  img("create", "-q", "-f", "qcow2", "base.qcow2", "10M");
  io("-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "base.qcow2");
  img("create", "-q", "-f", "qcow2", "other.qcow2", "10M");
  io("-c", "write -P 3 2M 64k", "other.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2");
  io("-c", "write -P 4 1088k 64k", "top.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "../base.qcow2", "-F", "qcow2", "sub/over.qcow2");
  img("create", "-q", "flat.raw", "5M");
  io("-f", "raw", "-c", "write -P 5 0 3M", "flat.raw");
  for (const name of ["a,b.qcow2", "a:b"]) symlinkSync("base.qcow2", name);
  mkdirSync("a");
  symlinkSync("../base.qcow2", "a/c:d");
  writeFileSync("shifted", Buffer.alloc(65536));
  runTool("sh", ["-c", "cat base.qcow2 >> shifted"]);
  img("create", "-q", "-f", "qcow2", "nest.qcow2", "2M");
  img("convert", "-n", "-O", "qcow2", "-f", "raw", "base.qcow2", "nest.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}', "-F", "qcow2", "on-json.qcow2");
  img("create", "-q", "-f", "qcow2", "-u", "-b", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}', "-F", "qcow2", "sub/on-json.qcow2", "10M");
  img("create", "-q", "-f", "qcow2", "-b", 'json:{"driver":"raw","offset":65536,"file":{"driver":"file","filename":"flat.raw"}}', "-F", "raw", "on-window.qcow2");
  img("create", "-q", "-f", "qcow2", "-u", "-b", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"gone"}}', "-F", "qcow2", "on-nothing.qcow2", "10M");
  img("create", "-q", "-f", "qcow2", "-u", "-b", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"},"backing":null}', "-F", "qcow2", "on-null.qcow2", "10M");
  writeFileSync("password", "x");
  writeFileSync("there", "");
}

function makeThere(): void {
  rmSync("x", { force: true });
  truncateSync("there", 0);
  truncateSync("there", 12 << 20);
}

const contents = (): string[] => ["there", "x"].map((file) => (existsSync(file) ? createHash("sha256").update(readFileSync(file)).digest("hex") : ""));

/** What both must say: all of what is printed, and that something was complained of. */
async function expectSame(args: readonly string[]): Promise<void> {
  makeThere();
  const wanted = qemuImg(...args), made = contents();
  makeThere();
  const ours = await disk86(...args), status = wanted.status;
  expect({ status: ours.status, stdout: status === 0 ? ours.stdout : "", stderr: ours.stderr !== "" }, `${wanted.stderr}${ours.stderr}`).toEqual({ status, stdout: status === 0 ? wanted.stdout : "", stderr: wanted.stderr !== "" });
  expect(status === 0 ? contents() : made).toEqual(made);
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("names of QEMU's, as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    makeImages();
  }, 60_000);
  afterAll(() => process.chdir(home));

  test.each(OPTIONS)("--image-opts %s", async (name) => {
    await expectSame(["info", "--output=json", "--image-opts", name]);
    await expectSame(["map", "--output=json", "--image-opts", name]);
  });

  test.each(JSON_NAMES)("json:%s", async (name) => {
    await expectSame(["info", `json:${name}`]);
    await expectSame(["map", "--output=json", `json:${name}`]);
  });

  test.each(CHAINS)("%s", async (name) => {
    await expectSame(["map", "--output=json", "--image-opts", name]);
    await expectSame(["convert", "--image-opts", name, "x"]);
    await expectSame(["info", "--image-opts", name]);
  });

  test('"backing": null is no backing file', () => expectSame(["map", "--output=json", 'json:{"driver":"qcow2","file.filename":"top.qcow2","backing":null}']));

  test("a chain whose names lead back to it ends", async () => {
    img("create", "-q", "-f", "qcow2", "-u", "-b", 'json:{"driver":"qcow2","file.filename":"circle.qcow2"}', "-F", "qcow2", "circle.qcow2", "1M");
    expect(await disk86("map", "circle.qcow2")).toMatchObject({ status: 1, stderr: expect.stringContaining("circle") });
    img("create", "-q", "-f", "qcow2", "-u", "-b", 'json:{"driver":"raw","file":{"driver":"qcow2","file.filename":"within.qcow2"}}', "-F", "raw", "within.qcow2", "1M");
    expect(await disk86("map", "within.qcow2")).toMatchObject({ status: 1, stderr: expect.stringContaining("deep") });
  });

  test.skipIf(!requireTool("nginx"))("http, by options; and an image from the web reaches no file", async () => {
    const name = (file: string): string => JSON.stringify({ driver: "qcow2", file: { driver: "file", filename: `${folder}/${file}` } });
    img("create", "-q", "-f", "qcow2", "-u", "-b", `json:${name("base.qcow2")}`, "-F", "qcow2", "thief.qcow2", "10M");
    const server = await startNginx(folder), { url } = server;
    try {
      expect(await disk86("compare", "--image-opts", `driver=qcow2,file.driver=http,file.url=${url}/base.qcow2`, "driver=qcow2,file.filename=base.qcow2")).toMatchObject({ status: 0 });
      expect(await disk86("compare", `json:{"driver":"qcow2","file":{"driver":"http","url":"${url}/top.qcow2"}}`, "top.qcow2")).toMatchObject({ status: 0 });
      expect(await disk86("map", `${url}/thief.qcow2`)).toMatchObject({ status: 1, stderr: expect.stringContaining("an image from the web names the local file") });
    } finally {
      await server.stop();
    }
  });

  test.each(LINES)("%s", async (line) => { await expectSame(words(line)); });
});
