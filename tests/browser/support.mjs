// One who visits a page, the page's text, and all waiting of these tests: for what is seen to happen, never for a time.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

/** How long anything may take before it counts as failed, in milliseconds: ten times what is slow on a busy machine. */
const LIMIT = 60_000;

/** Asks again and again until a condition holds, and gives its value. */
export async function until(what, condition) {
  const deadline = Date.now() + LIMIT;
  let last;
  while (Date.now() < deadline) {
    try {
      last = await condition();
      if (last) return last;
    } catch (fault) {
      last = fault;
    }
    await sleep(50);
  }
  throw new Error(`it never came true: ${what} (last: ${last})`);
}

/** The line to paste; tests read from localhost, which is ignored unless told otherwise. */
export const line = (service, attributes = "", file = "footfall.js") =>
  `<script defer src="${service.url}/${file}" data-site="demo" data-localhost ${attributes}></script>`;

export const html = (head, body = "") =>
  `<!doctype html><html lang="vi"><head><meta charset="utf-8"><title>Tin</title>${head}</head><body>${body}</body></html>`;

/**
 * A tab of a visitor of one's own, which notes what it says and sends. The clock of its pages goes on by itself, and
 * by hand with `tab.clock.runFor`.
 */
export async function visitor(browser, service, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(LIMIT);
  await context.clock.install();
  const tab = await context.newPage();
  tab.service = service;
  tab.faults = [];
  tab.said = [];
  tab.requests = [];
  tab.beacons = [];
  tab.on("pageerror", fault => tab.faults.push(String(fault)));
  tab.on("console", message => {
    // What the browser itself says of a request that failed cannot be helped.
    if (!/Failed to load resource/.test(message.text())) tab.said.push(message.text());
  });
  tab.on("request", request => {
    tab.requests.push(request.url());
    if (request.url().startsWith(service.url + "/api/v1/beacon")) tab.beacons.push(request.postData() ?? request.url());
  });
  return tab;
}

/** The beacons of a kind that a tab has sent. */
export const sent = (tab, kind) => tab.beacons.filter(body => body.includes(`"kind":"${kind}"`));

/** From here on the clock of the pages goes on by hand only. */
export const pause = tab => tab.clock.pauseAt(Date.now() + LIMIT);

let markers = 0;

/** Has the page send a request of its own, and waits for it: the page's requests are seen in their order. */
async function mark(tab) {
  const url = `${tab.service.url}/badge/demo.svg?marker=${++markers}`;
  await tab.evaluate(url => fetch(url, { mode: "no-cors" }).then(answer => answer.text()).catch(() => {}), url);
  await until("the page's marker is seen", () => tab.requests.includes(url));
}

/**
 * The page has taken what it was answered, its clock has gone on by two turns of the page script or more, and a
 * request of the page has followed. What was not sent before that request is not sent.
 */
export async function later(tab, milliseconds = 1100) {
  await mark(tab);
  await tab.clock.runFor(milliseconds);
  await mark(tab);
}

/** No uncaught error, no violation, no output. */
export function quiet(tab) {
  assert.deepEqual(tab.faults, []);
  assert.deepEqual(tab.said, []);
}

export const text = (tab, selector, wanted) =>
  until(`${selector} shows ${wanted}`, async () => (await tab.textContent(selector)) === wanted);

/** Has the pages of a tab note how far their layout shifts. */
export const noteShifts = tab =>
  tab.addInitScript(() => {
    window.shift = 0;
    const note = entries => entries.forEach(entry => (shift += entry.value));
    window.shifts = new PerformanceObserver(list => note(list.getEntries()));
    shifts.observe({ type: "layout-shift", buffered: true });
    window.shifted = () => (note(shifts.takeRecords()), shift);
  });

/** How far the layout has shifted, once all that changed is painted: a picture is taken of a painted page. */
export async function shifted(tab) {
  await tab.screenshot();
  return tab.evaluate(() => shifted());
}
