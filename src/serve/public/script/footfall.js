// The page script: counts the views of a page and fills its counters.
//
//   <script defer src="https://stats.example.org/footfall.js" data-site="lamdong"></script>
//
// Readers are sent the small form of this file (`released/`, made by tests/browser/build.mjs). `more.js`
// beside it holds what few pages use. Language: ES2017. Sets no cookie; needs no secure context, no eval,
// no inline style. No fault of the service or of the page becomes an uncaught one.
(() => {
  const doc = document;
  const find = selector => doc.querySelectorAll(selector);
  // Without a current script (a module, one that another script put in) it is known by its site.
  const script = doc.currentScript || find("script[data-site]")[0];
  if (window.footfall || !script) return;

  const set = script.dataset;
  // The service is where the script came from, also below a path.
  const base = script.src.replace(/[^/]*$/, "");
  const beaconUrl = base + (set.beacon || "api/v1/beacon");
  const siteUrl = base + "api/v1/sites/" + (set.site || location.hostname) + "/";
  const auto = set.auto != "off";
  const known = {}; // figures as they were shown, by name, bucket and page

  let consented = set.consent != "required";
  let due = auto; // a view is to be counted as soon as that may be
  let path; // the location's path when `here` was set
  let here; // the URL of the page
  let view; // the running view
  let unanswered; // it may not have arrived
  let asked; // the page has shown what it wants to know
  let last; // the counters as last read
  let more; // more.js was asked for
  let store = 0; // the browser's storage; without it reads find nothing and writes go nowhere
  try {
    store = localStorage;
  } catch (_) {}

  // Whether a beacon may be sent.
  const allowed = () =>
    consented &&
    !store.footfallOptOut &&
    !(navigator[set.gpc] > 0 || navigator[set.dnt] > 0) &&
    ("frames" in set || self == top) &&
    ("localhost" in set || !/localhost$|^127\./.test(location.hostname));

  // Asks the service: status and text; nothing where there is no answer. Plain text spares a preflight.
  const ask = async (url, body) => {
    try {
      const answer = await fetch(url, body ? { method: "POST", body, keepalive: true } : { cache: "no-cache" });
      const text = await answer.text();
      if (location.hash == "#footfall-debug") console.log(url, body, answer.status, text);
      return [answer.status, text];
    } catch (_) {
      return [];
    }
  };

  // The running view's beacon of a kind.
  const beacon = kind => JSON.stringify(Object.assign(view, { kind }));

  // Sends it; on the way out by sendBeacon.
  const post = (kind, leaving) =>
    view &&
    allowed() &&
    ((leaving && navigator.sendBeacon(beaconUrl, beacon(kind))) || ask(beaconUrl, beacon(kind)));

  // Sends a view until it is answered: again with the same id after 5, 20 and 80 seconds, if that is
  // within ten minutes; at last as an image, which may pass where fetch does not.
  const deliver = async (body, until, pause) => {
    if (Date.now() > until || !allowed()) return;
    const [status] = await ask(beaconUrl, body);
    if (status < 429) unanswered = 0;
    else if (pause < 99e3) setTimeout(deliver, pause, body, until, 4 * pause);
    else new Image().src = beaconUrl + ".gif?" + new URLSearchParams(JSON.parse(body));
  };

  // Counts the view that is due, if the page is visible and nothing speaks against it; then reads.
  const count = async () => {
    if (doc.hidden) return;
    if (due && allowed()) {
      due = 0;
      unanswered = 1;
      view = {
        id: Math.random().toString(36),
        url: here,
        site: set.site,
        visitor: (window.footfallVisitor || String)(),
      };
      await deliver(beacon("view"), Date.now() + 6e5, 5e3);
    }
    return read();
  };

  // Shows another page: the named one, else data-page, else the link or location.
  const enter = (page, { href } = location) => {
    path = location.pathname;
    here = page || set.page || href;
    last = 0;
    return count();
  };

  const rare = () => find("[data-live],[data-footfall-page],[data-footfall-opt-out],[id*=_pv]")[0];

  const read = async () => {
    const page = here;
    asked = find("[data-fill],[data-footfall]")[0] || rare();
    if (asked) {
      const [, text] = await ask(siteUrl + "counters?" + new URLSearchParams({ page }));
      if (page == here) take(text);
    }
  };

  // Takes counters as text; what is not counters changes nothing.
  const take = text => {
    try {
      const now = JSON.parse(text);
      if (now.buckets) last = now;
      doc.dispatchEvent(new CustomEvent("footfall:counters", { detail: last, bubbles: true }));
    } catch (_) {}
  };

  // Shows the figure of a name such as "visits.week" in the language of the element's place; nothing that
  // is not known. Within a bucket no figure is lowered, and none that was known is forgotten.
  const show = (element, name, counters, page) => {
    const keys = name.split(".");
    const value = keys.reduce((part, key) => part && part[key], counters);
    const place = name + counters.buckets[keys.pop()] + page;
    if (value === Math.abs(value) && !(value < known[place] && /v/.test(name))) known[place] = value;
    if (place in known) {
      const pad = element.dataset.footfallPad;
      let text = known[place].toLocaleString((element.closest("[lang]") || navigator).lang || []);
      if (pad) {
        element.role = "img";
        element.ariaLabel = text;
        text = (known[place] + "").padStart(pad, 0);
      }
      if (element.textContent != text) element.textContent = text;
    }
  };

  // Twice a second, however busy the page is: counts a change of the path, fills what is there. The page
  // must be complete: hydration comes before, and a framework must find what its server wrote.
  const tick = () => {
    if (auto && path != location.pathname) footfall.view();
    if (!asked) read();
    if (doc.readyState != "complete") return;
    if (last && set.fill != "off")
      for (const element of find("[data-footfall]:not([data-footfall-page])"))
        show(element, element.dataset.footfall, last, here);
    if (window.footfallMore) footfallMore(last, siteUrl, take, show, store, here);
    else if (!more && (more = rare()))
      doc.head.append(
        Object.assign(doc.createElement("script"), {
          src: base + (set.more || "footfall.vVERSION.more.js"),
          nonce: script.nonce,
        }),
      );
  };

  doc.addEventListener("visibilitychange", () => {
    if (doc.hidden) {
      if (unanswered) post("view", 1);
      post("leave", 1);
    } else {
      post("ping");
      count();
    }
  });
  // What is visible again after it was left comes from the back-forward cache.
  addEventListener("pagehide", () => (due = auto));

  setInterval(tick, 500);
  setInterval(() => doc.hidden || post("ping"), 1e3 * Math.max(15, set.ping || 60));
  setInterval(() => doc.hidden || read(), (2 + Math.random()) * 12e3);

  window.footfall = {
    view: page => {
      due = 1;
      return enter(page || (path == location.pathname && here));
    },
    refresh: read,
    consent: (yes = true) => {
      consented = yes;
      return count();
    },
    optOut: (out = true) => {
      store.footfallOptOut = out || "";
      return count();
    },
  };
  enter(0, find(`link[rel=canonical][href*="//${location.host}/"]`)[0]);
})();
