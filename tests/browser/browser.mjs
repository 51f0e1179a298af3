// Debian's Chromium for the tests of the status page. Standard input has one command on each line, as JSON; standard output has the answers.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

// The packages are in the folder in which this runs.
const require = createRequire(join(process.cwd(), "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const folder = mkdtempSync(join(tmpdir(), "authgate-browser-"));
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", `--disk-cache-dir=${folder}`,
  ],
});
const pages = new Map();
let next = 0;

// Sums the layout shifts that no input has caused, and says what has moved.
function observe() {
  window.shifts = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if (entry.hadRecentInput) continue;
      const moved = entry.sources.map(({ node, previousRect, currentRect }) => {
        const text = (node?.textContent ?? "").trim().slice(0, 60);
        return `${node?.nodeName} "${text}" ${previousRect.x},${previousRect.y} -> ${currentRect.x},${currentRect.y}`;
      });
      window.shifts.push(`${entry.value}: ${moved.join("; ")}`);
    }
  }).observe({ type: "layout-shift", buffered: true });
}

const commands = {
  async open({ url, width = 1280, height = 900, scheme = "light", javaScript = true, withPolicy = true, password, motion = "no-preference" }) {
    const context = await browser.newContext({
      viewport: { width, height },
      colorScheme: scheme,
      javaScriptEnabled: javaScript,
      bypassCSP: !withPolicy,
      reducedMotion: motion,
      httpCredentials: password === undefined ? undefined : { username: "operator", password },
    });
    const page = await context.newPage();
    const errors = [];
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) errors.push(message.text());
    });
    page.on("pageerror", (error) => errors.push(String(error)));
    const outside = [];
    page.on("request", (request) => {
      const target = request.url();
      if (!target.startsWith("data:") && new URL(target).origin !== new URL(url).origin) outside.push(target);
    });
    if (javaScript) await page.addInitScript(observe);
    const response = await page.goto(url, { waitUntil: "domcontentloaded" });
    const id = (next += 1);
    pages.set(id, { context, page, errors, outside });
    return { page: id, status: response.status(), headers: response.headers() };
  },
  async report({ page: id }) {
    const { page, errors, outside } = pages.get(id);
    const widths = await page.locator("html").evaluate((root) => [root.scrollWidth, root.clientWidth]);
    return {
      errors,
      outside,
      scroll_width: widths[0],
      width: widths[1],
      title: await page.title(),
      text: await page.locator("body").innerText(),
    };
  },
  async shifts({ page: id }) {
    return { shifts: await pages.get(id).page.evaluate("window.shifts") };
  },
  // Waits until a text is on the page.
  async wait({ page: id, text, timeout = 30000 }) {
    await pages.get(id).page.getByText(text).first().waitFor({ timeout });
    return {};
  },
  // Waits until the page shows other numbers than now.
  async update({ page: id }) {
    const { page } = pages.get(id);
    const time = page.locator("#live time").first();
    const before = await time.getAttribute("datetime");
    for (let tries = 0; tries < 600; tries += 1) {
      if ((await time.getAttribute("datetime")) !== before) return {};
      await page.waitForTimeout(100);
    }
    throw new Error(`there is no event after ${before}`);
  },
  async axe({ page: id }) {
    const { page } = pages.get(id);
    await page.evaluate(axe);
    const { violations, incomplete } = await page.evaluate("axe.run(document, { resultTypes: ['violations', 'incomplete'] })");
    const text = ({ id: rule, nodes }) => `${rule}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(" | ")}`;
    return { violations: violations.map(text), incomplete: incomplete.map(text) };
  },
  // The elements that the Tab key focuses, each with whether its focus can be seen.
  async tab({ page: id, times }) {
    const { page } = pages.get(id);
    const focused = [];
    for (let at = 0; at < times; at += 1) {
      await page.keyboard.press("Tab");
      focused.push(await page.locator(":focus").first().evaluate((element) => {
        const style = getComputedStyle(element);
        const box = element.getBoundingClientRect();
        const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.width > 0 && box.right > 0;
        return { text: element.textContent.trim().slice(0, 60), seen };
      }));
    }
    return { focused };
  },
  async focus({ page: id, selector }) {
    await pages.get(id).page.locator(selector).first().focus();
    return {};
  },
  async focused({ page: id }) {
    return { text: await pages.get(id).page.locator(":focus").first().textContent() };
  },
  async screenshot({ page: id, file }) {
    await pages.get(id).page.screenshot({ path: file, fullPage: true });
    return {};
  },
  async close({ page: id }) {
    await pages.get(id).context.close();
    pages.delete(id);
    return {};
  },
};

console.log(JSON.stringify({ version: browser.version() }));
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line);
  let answer;
  try {
    answer = await commands[command](parameters);
  } catch (error) {
    answer = { error: String(error.stack ?? error) };
  }
  console.log(JSON.stringify(answer));
}
await browser.close();
rmSync(folder, { recursive: true, force: true });
