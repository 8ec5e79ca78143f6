import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { portableCrypto } from "../../disk/crypto/portable.ts";
import { nodeCrypto } from "../../disk/crypto/provider.node.ts";
import { setCrypto } from "../../disk/crypto/provider.ts";
import { DiskError } from "../../disk/errors.ts";
import { expectBytes } from "../support/bytes.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { ourCheck } from "../support/qcow2.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const MIB = 2 ** 20, PASSWORD = "pässword";
const folder = tempFolder(), home = process.cwd();
const secret = new TextEncoder().encode(PASSWORD), object = ["--object", `secret,id=s,data=${PASSWORD}`];
const named = (image: QemuImage): string => `driver=qcow2,encrypt.key-secret=s,file.filename=${image.path}`;

/** An encrypted image, worked on by QEMU with the password. */
class Encrypted extends QemuImage {
  byQemu(size: string, options: string, extra: readonly string[] = []): void {
    this.create(size, `${options},encrypt.key-secret=s`, [...object, ...extra]);
  }

  /** By us: QEMU makes headers that take it seconds to open. */
  async make(size: string, options: string): Promise<void> {
    expect(await disk86("create", "-q", "-f", "qcow2", ...object, "-o", `${options},encrypt.key-secret=s`, this.path, size)).toEqual({ status: 0, stdout: "", stderr: "" });
  }

  override io(...commands: string[]): void {
    runTool("qemu-io", [...object, "--image-opts", "-d", "unmap", ...commands.flatMap((command) => ["-c", command]), named(this)]);
  }

  override contents(snapshot?: string): Uint8Array {
    const raw = join(this.folder, "plain.raw");
    runTool("qemu-img", ["convert", ...object, "--image-opts", "-O", "raw", ...(snapshot === undefined ? [] : ["-l", snapshot]), named(this), raw]);
    return new Uint8Array(readFileSync(raw));
  }

  async expectGood(contents: Uint8Array): Promise<void> {
    expect(tryTool("qemu-img", ["check", ...object, "--image-opts", named(this)])).toMatchObject({ status: 0 });
    expect(await ourCheck(this.path)).toMatchObject({ leaks: 0, corruptions: 0, checkErrors: 0 });
    expectBytes(this.contents(), contents);
  }
}

const LUKS = "encrypt.format=luks,encrypt.iter-time=10";
const WAYS = [
  ["encrypt.format=aes", ""], ["encrypt.format=aes,compat=0.10,cluster_size=4k", ""], ["encrypt.format=aes,extended_l2=on", ""],
  [LUKS, ""], [`${LUKS},cluster_size=512`, ""], [`${LUKS},extended_l2=on`, ""], [LUKS, "base"],
  [`${LUKS},encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1`, ""], [`${LUKS},encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256`, ""],
  [`${LUKS},encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain,encrypt.hash-alg=sha512`, ""], [`${LUKS},encrypt.cipher-alg=aes-256,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain64,encrypt.hash-alg=ripemd160`, ""],
] as const;

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("encrypted images", () => {
  for (const [provider, how] of [[nodeCrypto, "OpenSSL"], [portableCrypto, "JavaScript"]] as const) {
    describe(`with ${how}`, () => {
      beforeAll(() => { setCrypto(() => Promise.resolve(provider)); });
      afterAll(() => { setCrypto(() => Promise.resolve(nodeCrypto)); });

      // QEMU takes its time for every LUKS header.
      for (const [options, base] of WAYS.filter((_, i) => process.env["LONG"] !== undefined || (how === "OpenSSL" ? [1, 2, 6, 8] : [0, 10]).includes(i))) {
        seeded(`${options} ${base}: QEMU and we take turns`, async (random) => {
          const image = new Encrypted(folder), size = 2 * MIB;
          if (base !== "") writeFileSync(join(folder, "base.raw"), random.bytes(MIB));
          if (base !== "" || options.includes("aes,")) image.byQemu(String(size), options, base === "" ? [] : ["-b", "base.raw", "-F", "raw"]);
          else await image.make(String(size), options);
          image.scribble(random, 6, size);
          const before = image.contents();
          expectBytes(await image.bytes({ secret }), before);
          const disk = await image.open({ secret }), model = await scribbled(random, disk, before, 8);
          await disk.close();
          await image.expectGood(model);
          image.scribble(random, 4, size);
          expectBytes(await image.bytes({ secret }), image.contents());
        }, 60_000);
      }
    });
  }

  describe("on the command line", () => {
    beforeAll(() => process.chdir(folder));
    afterAll(() => process.chdir(home));

    test("what has the password reads and writes it; without, or with another, QEMU's words", async () => {
      const image = new Encrypted(folder), aes = new Encrypted(folder);
      await image.make("1M", LUKS);
      await aes.make("1M", "encrypt.format=aes");
      image.io("write -q -P 7 100k 100k");
      for (const line of [
        ["map", image.path], ["map", aes.path], ["map", "--image-opts", named(image)], ["map", "--output=json", ...object, "--image-opts", named(image)],
        ["map", "--object", "secret,id=s,data=wrong", "--image-opts", named(image)], ["map", ...object, "--image-opts", named(aes)],
        ["convert", "-O", "raw", ...object, "--image-opts", named(image), "copy.raw"], ["resize", "-q", ...object, "--image-opts", named(image), "2M"],
      ]) {
        const wanted = qemuImg(...line), ours = await disk86(...line), told = (text: string): string => text.replace(/^.*?: (Could not open .*?: )?/, "").split(":")[0]?.trim() ?? "";
        expect([line[0], ours.status, ours.stdout]).toEqual([line[0], wanted.status, wanted.stdout]);
        expect(ours.stderr).toContain(told(wanted.stderr));
        expect(ours.stderr + ours.stdout).not.toContain(PASSWORD);
      }
      expect(readFileSync("copy.raw").subarray(100 * 1024, 200 * 1024).every((byte) => byte === 7)).toBe(true);
    });

    test.each([
      "encrypt.format=aes", "encryption=on,compat=0.10", "encrypt.format=luks,encrypt.iter-time=10", "encrypt.format=luks,encrypt.iter-time=10,cluster_size=512,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.hash-alg=sha512,encrypt.cipher-alg=aes-128",
    ])("made by us, and opened by QEMU: %s", async (options) => {
      const image = new Encrypted(folder), line = ["create", "-f", "qcow2", ...object, "-o", `${options},encrypt.key-secret=s`, image.path, "2M"];
      const ours = await disk86(...line);
      expect(ours).toEqual({ status: 0, stderr: "", stdout: `Formatting '${image.path}', fmt=qcow2 ${ours.stdout.split("fmt=qcow2 ")[1] ?? ""}` });
      expectBytes(await image.bytes({ secret }), new Uint8Array(2 * MIB));
      image.io("write -q -P 7 0 2M");
      await image.expectGood(new Uint8Array(2 * MIB).fill(7));
      const disk = await image.open({ secret });
      await disk.write(100, new Uint8Array(70_000).fill(9));
      await disk.close();
      await image.expectGood(new Uint8Array(2 * MIB).fill(7).fill(9, 100, 70_100));
    });

    test("convert makes an encrypted copy, with bitmaps and all", async () => {
      const plain = new QemuImage(folder), copy = new Encrypted(folder);
      plain.create("1M", "");
      plain.io("write -q -P 5 100k 300k");
      runTool("qemu-img", ["bitmap", "--add", plain.path, "daily"]);
      expect(await disk86("convert", "--bitmaps", "-O", "qcow2", ...object, "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", plain.path, copy.path)).toEqual({ status: 0, stdout: "", stderr: "" });
      await copy.expectGood(plain.contents());
      expect(readFileSync(copy.path).includes(Buffer.alloc(512, 5))).toBe(false);
    });

    test.each([
      "encrypt.format=luks", "encrypt.format=luks,encrypt.key-secret=q", "encrypt.format=foo,encrypt.key-secret=s", "encrypt.key-secret=s", "encryption=on,encrypt.format=aes,encrypt.key-secret=s",
      "encryption=on", "encrypt.cipher-mode=xts,encrypt.format=aes,encrypt.key-secret=s", "encrypt.cipher-alg=foo,encrypt.format=luks,encrypt.key-secret=s", "encryption=off",
    ])("refused as QEMU does: %s", async (options) => {
      const line = ["create", "-f", "qcow2", ...object, "-o", options, "new.qcow2", "1M"], wanted = qemuImg(...line), ours = await disk86(...line);
      expect([ours.status, ours.stdout]).toEqual([wanted.status, wanted.stdout]);
      expect(ours.stderr).toContain(wanted.stderr.replace(/^qemu-img: new.qcow2: (Parameter 'encrypt.cipher-mode' is unexpected)?/, "$1").trim());
    });

    test("one key among several slots", async () => {
      const image = new Encrypted(folder);
      await image.make("1M", LUKS);
      image.io("write -q -P 7 0 100k");
      writeFileSync("second", "other");
      runTool("qemu-img", ["amend", ...object, "--object", "secret,id=t,file=second", "--image-opts", "-o", "encrypt.state=active,encrypt.new-secret=t,encrypt.keyslot=5,encrypt.iter-time=10", named(image)]);
      expectBytes(await image.bytes({ secret: new TextEncoder().encode("other") }), image.contents());
    });
  });

  test("changes of parts of sectors, side by side on a slow storage", async () => {
    const image = new Encrypted(folder);
    await image.make("1M", LUKS);
    image.io("write -q -P 1 0 1M");
    const disk = await image.open({ secret }), model = new Uint8Array(MIB).fill(1);
    await Promise.all(Array.from({ length: 40 }, async (_, i) => {
      const bytes = new Uint8Array(100).fill(i + 2);
      model.set(bytes, i * 100 + 50);
      await disk.write(i * 100 + 50, bytes);
    }));
    const odd = new Uint8Array(777);
    await disk.read(33, odd);
    expectBytes(odd, model.subarray(33, 33 + 777));
    await disk.close();
    await image.expectGood(model);
  });

  test("what is copied to a snapshot's side is encrypted anew", async () => {
    const image = new Encrypted(folder);
    await image.make("1M", `${LUKS},extended_l2=on`);
    image.io("write -q -P 1 0 1M");
    runTool("qemu-img", ["snapshot", ...object, "--image-opts", "-c", "one", named(image)]);
    const before = image.contents(), disk = await image.open({ secret }), model = before.slice().fill(9, 70_000, 70_100);
    await disk.write(70_000, new Uint8Array(100).fill(9));
    await disk.close();
    await image.expectGood(model);
    expectBytes(image.contents("one"), before);
    expectBytes(await image.bytes({ secret, snapshot: "one" }), before);
  });

  seeded("a damaged header ends in a DiskError, soon", async (random) => {
    const image = new Encrypted(folder), copy = new Encrypted(folder);
    await image.make("1M", LUKS);
    const whole = readFileSync(image.path), at = Number(whole.readBigUInt64BE(120));
    for (let i = 0; i < 20; i++) {
      const bytes = Buffer.from(whole);
      for (let n = 0; n <= random.int(2); n++) bytes[at + random.int(256)] = random.pick([0, 0xff, random.int(256)]);
      if (random.chance(0.2)) bytes[112 + random.int(24)] = random.int(256);
      // Honest numbers of iterations: with others it would only take longer.
      bytes.writeUInt32BE(1000, at + 164);
      copyFileSync(image.path, copy.path);
      writeFileSync(copy.path, bytes);
      try {
        await copy.bytes({ secret });
      } catch (error) {
        expect(error).toBeInstanceOf(DiskError);
      }
    }
    whole.writeUInt32BE(0xffff_ffff, at + 208 + 4);
    writeFileSync(copy.path, whole);
    await expect(copy.bytes({ secret })).rejects.toThrow(/would take very long/);
  }, 60_000);
});
