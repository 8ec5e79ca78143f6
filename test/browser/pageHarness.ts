import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { expect } from "vitest";
import { findTool } from "../support/tools.ts";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Where screenshots go, for people to look at. */
export const OUTPUT = join(import.meta.dirname, "../output");

/** Long enough for a boot on a machine that does much else. */
export const BOOT = 120_000;

/** A user's Chromium, with a profile of its own. Whatever the page's scripts throw is in `errors`. */
export interface User { readonly context: BrowserContext; readonly errors: string[]; tab(url: string): Promise<PageUser>; leave(): Promise<void> }

export async function startUser(options: { width?: number; height?: number; dark?: boolean; flags?: string[] } = {}): Promise<User> {
  const profile = mkdtempSync(join(tmpdir(), "disk86-page-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: findTool("chromium") ?? "chromium", args: [...FLAGS, ...(options.flags ?? [])], acceptDownloads: true,
    viewport: { width: options.width ?? 1280, height: options.height ?? 860 }, colorScheme: options.dark === true ? "dark" : "light",
  });
  const errors: string[] = [];
  const tab = async (url: string): Promise<PageUser> => {
    const page = await context.newPage();
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("crash", () => errors.push("the tab crashed"));
    await page.goto(url);
    await page.locator("#guests").waitFor();
    return new PageUser(page);
  };
  const leave = async (): Promise<void> => {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  };
  return { context, errors, tab, leave };
}

let commands = 0;

/** The page, as someone uses it. */
export class PageUser {
  constructor(readonly page: Page) {}

  button(name: string | RegExp): ReturnType<Page["getByRole"]> {
    return this.page.getByRole("button", { name });
  }

  /** Waits for the guest's prompt; answers with the seconds the page tells. */
  async ready(): Promise<number> {
    const status = this.page.locator(".doing"), problem = this.page.locator(".card.error");
    await this.page.locator(".doing[data-ready=true]").or(problem).first().waitFor({ timeout: BOOT });
    if (await problem.count() > 0) throw new Error(`the page shows: ${await problem.innerText()}`);
    return Number(/[\d.]+/.exec(await status.innerText())?.[0]);
  }

  async boot(title: string, bus?: "ide" | "virtio"): Promise<number> {
    if (bus) await this.page.getByRole("radio", { name: bus === "ide" ? /^IDE/ : /^virtio/ }).check();
    await this.button(`Boot ${title}`).click();
    return await this.ready();
  }

  /** What the serial terminal shows. */
  async terminal(): Promise<string> {
    return (await this.page.locator(".xterm-rows > div").allInnerTexts()).map((row) => row.replaceAll("\u00a0", " ").trimEnd()).join("\n");
  }

  /** Runs a command in the guest's shell on the serial terminal; answers with what the terminal shows after it. */
  async run(command: string, timeout = 60_000): Promise<string> {
    const number = ++commands, mark = `end-${number}:`;
    await this.page.locator(".console").click();
    await this.page.keyboard.type(`clear; ${command}; echo end-$((${number})):$?\n`);
    await expect.poll(() => this.terminal(), { timeout, interval: 200 }).toMatch(new RegExp(`^${mark}\\d+$`, "m"));
    return await this.terminal();
  }

  /** Waits until the page says that everything is saved. */
  async saved(): Promise<void> {
    await this.page.locator(".chip[data-state=saved]").waitFor({ timeout: 20_000 });
  }

  /** Presses a button that downloads; the file is kept as `path`. */
  async download(name: string, path: string): Promise<string> {
    const [download] = await Promise.all([this.page.waitForEvent("download"), this.button(name).click()]);
    await download.saveAs(path);
    return download.suggestedFilename();
  }

  /** The overlay of a machine that is off, as it lies in the browser's storage. */
  async readKept(id: string, path: string): Promise<void> {
    const base64 = await this.page.evaluate(async (id) => {
      let folder = await navigator.storage.getDirectory();
      for (const name of ["machines", id]) folder = await folder.getDirectoryHandle(name);
      const reader = new FileReader(), file = await (await folder.getFileHandle("overlay.qcow2")).getFile();
      await new Promise((resolve) => { reader.onload = resolve; reader.readAsDataURL(file); });
      return typeof reader.result === "string" ? reader.result.replace(/.*,/, "") : "";
    }, id);
    writeFileSync(path, Buffer.from(base64, "base64"));
  }

  async powerOff(): Promise<void> {
    await this.button("Power off").click();
    await this.page.locator("#guests").waitFor({ timeout: 30_000 });
  }

  async screenshot(name: string): Promise<void> {
    mkdirSync(OUTPUT, { recursive: true });
    await this.page.screenshot({ path: join(OUTPUT, `page-${name}.png`), fullPage: true });
  }
}

const SHIFTED: Readonly<Record<string, string>> = { "\"": "Quote", "|": "Backslash", "$": "Digit4", "(": "Digit9", ")": "Digit0", "*": "Digit8", ">": "Period" };

/** Presses the keys of a US keyboard, Shift and all: `keyboard.type` leaves Shift out. */
export async function typeKeys({ page }: PageUser, text: string): Promise<void> {
  for (const character of text.split("")) {
    const shifted = SHIFTED[character] ?? (/[A-Z]/.test(character) ? `Key${character}` : undefined);
    await page.keyboard.press(shifted === undefined ? character.replace("\n", "Enter").replace(" ", "Space") : `Shift+${shifted}`, { delay: 10 });
  }
}

/** Nothing reaches beyond the right edge of the window. */
export async function expectNoOverflow({ page }: PageUser): Promise<void> {
  const { wide, width } = await page.evaluate(() => ({
    width: document.documentElement.clientWidth,
    wide: [...document.querySelectorAll("main *")].filter((one) => !one.closest(".console, code.line, .offstage") && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((one) => `${one.tagName}.${one.className}`),
  }));
  expect({ width, wide }).toEqual({ width, wide: [] });
}

export function sha256(file: string): string {
  return createHash("sha256").update(readFileSync(file)).digest("hex");
}
