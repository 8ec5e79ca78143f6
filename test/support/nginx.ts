import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findTool } from "./tools.ts";

/** A port of this machine that nobody listened on a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  const address = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** An nginx of our own that serves `root`; `directives` go into its `server` block. Check `requireTool("nginx")` first. */
export async function startNginx(root: string, directives = ""): Promise<{ url: string; stop(): Promise<void> }> {
  const port = await freePort();
  const home = mkdtempSync(join(tmpdir(), "disk86-nginx-"));
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${home}/${kind};`).join(" ");
  writeFileSync(join(home, "nginx.conf"), `
    daemon off; master_process off; pid ${home}/pid; error_log ${home}/error.log;
    events {}
    http { access_log off; ${temporary} default_type application/octet-stream;
      server { listen 127.0.0.1:${port}; root ${root}; ${directives} } }`);
  const nginx = spawn(findTool("nginx") ?? "nginx", ["-p", home, "-c", join(home, "nginx.conf"), "-e", join(home, "error.log")], { stdio: "ignore" });
  const ended = new Promise<void>((resolve) => { nginx.once("exit", () => resolve()); });
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries++) {
    if (await fetch(url, { method: "HEAD" }).then(() => true, () => false)) break;
    if (tries > 100 || nginx.exitCode !== null) throw new Error("nginx does not start");
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  const stop = async (): Promise<void> => {
    nginx.kill();
    await ended;
    rmSync(home, { recursive: true, force: true });
  };
  return { url, stop };
}
