// One who visits a page, and the page's text.
import assert from "node:assert/strict";
import { until } from "./service.mjs";

/** The line to paste; tests read from localhost, which is ignored unless told otherwise. */
export const line = (service, attributes = "", file = "footfall.js") =>
  `<script defer src="${service.url}/${file}" data-site="demo" data-localhost ${attributes}></script>`;

export const html = (head, body = "") =>
  `<!doctype html><html lang="vi"><head><meta charset="utf-8"><title>Tin</title>${head}</head><body>${body}</body></html>`;

/** A tab of a visitor of one's own, which notes what it says and sends. */
export async function visitor(browser, service) {
  const context = await browser.newContext();
  const tab = await context.newPage();
  tab.faults = [];
  tab.said = [];
  tab.beacons = [];
  tab.on("pageerror", fault => tab.faults.push(String(fault)));
  tab.on("console", message => {
    // What the browser itself says of a request that failed cannot be helped.
    if (!/Failed to load resource/.test(message.text())) tab.said.push(message.text());
  });
  tab.on("request", request => {
    if (request.url().startsWith(service.url + "/api/v1/beacon")) tab.beacons.push(request.postData() ?? request.url());
  });
  return tab;
}

/** No uncaught error, no violation, no output. */
export function quiet(tab) {
  assert.deepEqual(tab.faults, []);
  assert.deepEqual(tab.said, []);
}

export const text = (tab, selector, wanted) =>
  until(`${selector} shows ${wanted}`, async () => (await tab.textContent(selector)) === wanted);
