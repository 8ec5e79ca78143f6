// Makes web/screenshot.png of the page at the address given: `npm start`, then `node web/screenshot.mjs http://127.0.0.1:8086/`.
import { chromium } from "playwright-core";

const [address = "http://127.0.0.1:8086/"] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
// Two panels side by side need 1120 px; the picture is to be 1000 px wide, and below 64 KiB.
const page = await browser.newPage({ viewport: { width: 1250, height: 690 }, deviceScaleFactor: 0.8 });
await page.goto(address);
await page.getByRole("button", { name: "Boot Debian 12" }).click();
await page.locator(".doing[data-ready=true]").waitFor({ timeout: 300_000 });
await page.locator(".screen").click();
await page.keyboard.type("clear; lsblk; free -m\n");
await page.locator(".console").click();
await page.keyboard.type("clear; uname -sr; python3 -c 'print(sum(range(86)))'; echo hello > f; sync\n");
await page.waitForTimeout(15_000);
await page.screenshot({ path: new URL("screenshot.png", import.meta.url).pathname });
await browser.close();
