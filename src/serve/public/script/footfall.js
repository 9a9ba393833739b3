// The page script: counts the views of a page and fills its counters.
//
//   <script defer src="https://stats.example.org/footfall.js" data-site="lamdong"></script>
//
// Readers are sent the small form of this file (`released/`, made by tests/browser/build.mjs). `more.js`
// beside it shows figures, `rare.js` does what few pages need, `debug.js` says why nothing is sent. Language: ES2019 and
// import(). Sets no cookie; needs no secure context, no eval, no inline style. No fault of the service or of the page becomes an
// uncaught one.
{
  const attempt = part => {
    try {
      return part();
    } catch (_) {}
  };
  attempt(() => {
    // The document without the names of the page's elements: where the page has an <img name="hidden">,
    // `document.hidden` is that image.
    const doc = new Proxy(document, {
      get: (target, name) => {
        const value = Reflect.get(Document.prototype, name, target);
        return value instanceof Function ? value.bind(target) : value;
      },
    });
    // What runs, by site, and what is common to them in names with a capital: where no element can have its name.
    const all = (Document.footfall = Document.footfall || {});
    let site;
    let roots = [doc]; // and the open shadow roots in it
    // This site's elements. Those that name no site are the first one's.
    const find = selector =>
      roots
        .flatMap(root => [...root.querySelectorAll(selector)])
        .filter(({ dataset }) => !site || ((dataset || all).site || all.First) == site);

    // The line as it was written. What moves scripts (an optimiser, a tag manager, a bundler) runs them from another
    // element, from none, or as a text: then it is the line that names this script or has a setting of its own, and
    // does not run yet. Other services' lines have a data-site too.
    const script =
      find("script[data-site]").find(
        line => !all[line.dataset.site] && /footfall|data-service|data-more/.test(line.outerHTML),
      ) || doc.currentScript;
    // Without what a page gives every object.
    const set = { __proto__: null, ...script.dataset };
    site = set.site || location.hostname;
    if (all[site]) return;
    all.First = all[site] = all.First || site;

    // The service is where the script came from, also below a path.
    const base = (set.service ? set.service + "/" : script.src || doc.currentScript.src).replace(/[^/]*$/, "");
    const beaconUrl = base + (set.beacon || "api/v1/beacon");
    const auto = set.auto != "off";
    // Ticks, of which there are two a second, between the pings of a page that shows no figures.
    const pace = Math.max(30, 2 * set.ping || 120);

    // Of the document. Pages replace Math.random, and the clock.
    const id = `${Date.now()}${Math.random()}${new Event("").timeStamp}`;
    const made = {}; // what other files do at each tick
    let at; // the location when `here` was set
    let here; // the page; empty where it has none
    let number = 0; // of the running view
    let due; // it is to be sent
    let wait; // ticks to the next attempt
    let view; // its beacon, once it was sent
    let reads; // the figures are to be read
    let last; // the counters as last taken
    let rest; // ticks since the last turn
    let asked; // other files, since then
    let debug; // whether the console is told what is sent, or why nothing is
    const store = attempt(() => localStorage) || all;

    // The location without its fragment, which is never sent unless it is a route; empty for a copy on a disk or on
    // the author's machine.
    const address = () => {
      const url = "hash" in set ? location.href.replace(/\/?(\?[^#]*)?#!?\//, "/") : location.href;
      return "localhost" in set || !/^[^h]|\/\/(localhost|127\.)/.test(url) ? url.split("#")[0] : "";
    };

    // Whether a beacon may be sent.
    const allowed = () =>
      here &&
      ("consent" in set ? all.Agreed : all.Agreed != 0) &&
      !(store.footfallOptOut || navigator[set.gpc] > 0 || navigator[set.dnt] > 0) &&
      ("frames" in set || top == window);

    const shows = () =>
      set.fill || set.live || find("[data-footfall],[data-footfall-page],[data-footfall-opt-out],[id*=_pv],[id*=_uv]")[0];

    // Sends a beacon and takes its answer, which only the service can give. Plain text spares a preflight. The
    // origin is told whatever the page's policy: the service asks for it. The body is written by hand, as pages
    // give prototypes a toJSON of their own.
    const tell = async kind => {
      const page = here;
      const body = `{"kind":"${kind}","id":"${id}${number}","visitor":"${
        attempt(() => window.footfallVisitor().slice(0, 64)) || ""
      }","url":"${here.replace(/[\t-\r"\\]|#.*|([?&])[^?&]{500,}/g, "$1").slice(0, 3e3)}"${
        set.site ? `,"site":"${site}"` : ""
      }${kind == "view" || (kind == "ping" && shows()) ? ',"answer":"counters"' : ""}${all.Agreed ? ',"consent":true' : ""}}`;
      let text, status;
      if (kind == "view") view = body;
      try {
        const answer = await Promise.race([
          fetch(beaconUrl, { method: "POST", body, keepalive: 1, referrerPolicy: "origin" }),
          new Promise(late => setTimeout(late, 3e4)),
        ]);
        text = await answer.text();
        status = answer.headers.has("footfall") && answer.status;
        if (debug) console.log(body, answer, status ? text : "data-service?");
      } catch (_) {}
      if (page != here) return;
      reads = kind != "leave" && !take(text) && shows();
      if (kind != "view") return;
      // Redirected, a POST has become a GET (405).
      if (/^(2|40[0-4]|41)/.test(status)) {
        due = wait = 0;
        // Where the page as it is named is not the site's, the location may be.
        if (status > 399) due = here = here == at ? "" : at;
      } else if (wait < 99) {
        due = 1;
        wait = 4 * wait || 10;
      }
    };

    // Takes counters as text; what is not counters changes nothing.
    const take = text =>
      attempt(() => {
        const now = JSON.parse(text);
        if (!now.buckets) return;
        last = now;
        return doc.dispatchEvent(new CustomEvent("footfall:counters", { detail: last, bubbles: 1 }));
      });

    // Gives the sign of life that is due. A view is sent until it is answered: again with the same id after 5, 20
    // and 80 seconds.
    const turn = () => {
      rest = 0;
      asked = {};
      if (doc.hidden) return;
      if (allowed() && (due || view)) {
        tell(due ? "view" : "ping");
        due = 0;
      } else if (!(reads = shows())) rest = 1e4;
    };

    // Shows a page, which counts. The service counts a page once for an id.
    const enter = (page, counts, same) => {
      at = address();
      here = at && "" + (page || at);
      if (!same) number++;
      due = counts;
      last = {};
      wait = 0;
      turn();
    };

    // What is done twice a second, however busy the page is.
    const run = () =>
    [
      () => {
        roots = [doc];
        for (const root of roots)
          for (const { shadowRoot } of root.querySelectorAll("*")) if ((shadowRoot || 0).host) roots.push(shadowRoot);
      },
      () => {
        if (++rest >= (due && allowed() ? wait : shows() ? 60 : pace)) turn();
      },
      () => use("more", shows()),
      () => {
        if (use("rare", reads || wait || address() != at || set.live)) reads = 0;
      },
      () => use("debug", (debug = /debug/.test(location.hash))),
    ].forEach(attempt);

    // Has another file do its work, fetched when it is needed first; says whether it has. An import bears the nonce
    // of this script, and no policy on scripts' URLs hinders it.
    const use = (name, needed) => {
      const make = window["footfall_" + name];
      if (make instanceof Function) {
        (made[name] = made[name] || make(doc, set, base, site, find, take, enter, address, beaconUrl))(last, here, at, wait && view, reads);
        return 1;
      }
      if (needed && !asked[name]) {
        const file = (set.more || "footfall.vVERSION.more.js").replace("more.js", name + ".js");
        asked[name] = import(base + file).then(run, attempt);
      }
    };

    // The view first: what a page replaces may fail.
    enter(set.page || (doc.querySelector("head link[rel~=canonical]") || 0).href, auto);
    run();
    setInterval(run, 500);
    doc.addEventListener("visibilitychange", () => {
      if (!doc.hidden || !view || !allowed()) turn();
      else {
        if (wait) tell("view");
        tell("leave");
      }
    });
    // From the back-forward cache a page is shown anew.
    addEventListener("pageshow", ({ persisted }) => persisted && enter(here, auto));

    if (all.First == site)
      window.footfall = {
        view: page => enter(page || (at == address() && here), 1, page),
        refresh: turn,
        consent: (...told) => {
          all.Agreed = !!told.concat(1)[0];
          due = due || view;
        },
        optOut: (out = true) => attempt(() => (store.footfallOptOut = out || "")),
      };
  });
}
