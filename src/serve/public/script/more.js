// What not every page needs: figures, lists, elements named as busuanzi and Vercount name theirs, and buttons to opt
// out. `footfall.js` fetches this file for pages that need it and calls what
// `footfall_more` makes twice a second; a page may also name it before `footfall.js`.
(() => {
  const attempt = part => {
    try {
      return part();
    } catch (_) {}
  };
  const store = attempt(() => localStorage) || Document.footfall || {};
  // What changes nothing is not written: pages watch their elements.
  const put = (element, name, value) => {
    if (element[name] != value) element[name] = value;
  };
  const query = page => "page=" + encodeURIComponent(page);

  window.footfall_more = (doc, set, base, site, find) => {
    const siteUrl = base + "api/v1/sites/" + site + "/";
    const known = {}; // figures as they were shown, by name, bucket and page
    // Pages of lists: 0 until they are read, then counters in which they are the page.
    const listed = { __proto__: null };
    let last, here; // as told last
    let ticks = 0; // since the document was parsed
    let readAt = 0; // when the lists are to be read anew

    // Shows the figure of a name such as "visits.week" in the language of the element's place; nothing that
    // is not known. Within a bucket no figure is lowered, and none that was known is forgotten.
    const show = (element, name, counters, page) =>
      attempt(() => {
        const keys = name.split(".");
        const value = keys.reduce((part, key) => part && part[key], counters);
        const place = name + counters.buckets[keys.pop()] + page;
        if (value === Math.abs(value) && !(value < known[place] && /v/.test(name))) known[place] = value;
        if (!(place in known)) return;
        const number = known[place];
        // A language is often written vi_VN.
        const tag = (element.closest("[lang]") || doc.documentElement).lang.replace(/_/g, "-");
        let text = attempt(() => number.toLocaleString(tag || [])) || number.toLocaleString();
        const pad = element.dataset.footfallPad;
        if (pad) {
          put(element, "role", "img");
          put(element, "ariaLabel", text);
          text = (number + "").padStart(Math.min(pad, 20), 0);
        }
        put(element, "textContent", text);
      });

    // What the site keeps of a query: no token stands in a URL that caches keep.
    const kept = query =>
      "?" +
      query
        .slice(1)
        .split("&")
        .filter(pair => (last.page_query || []).includes([...new URLSearchParams(pair).keys()][0]))
        .join("&");

    // A page of a list. Nothing and a mere fragment are none.
    const item = url => {
      const { href } = Object.assign(doc.createElement("a"), { href: url });
      return (/^\/(?!\/)/.test(url) ? url : /^[^#]/.test(url) && /^http/.test(href) ? href : "")
        .split("#")[0]
        .replace(/\?.*/, kept);
    };

    // Reads pages of lists, at most 50 and 2,000 bytes of URL a request.
    const readLists = async pages => {
      while (pages.length) {
        const batch = [];
        let url = siteUrl + "pages?";
        let longer = url + query(item(pages[0]));
        do {
          url = longer;
          batch.push(pages.shift());
          longer = url + "&" + query(item(pages[0]));
        } while (pages.length && batch.length < 50 && longer.length < 2e3);
        try {
          const { buckets, pages } = await (await fetch(url, { cache: "no-cache" })).json();
          batch.forEach((name, at) => (listed[name] = { buckets, page: pages[at] }));
        } catch (_) {}
      }
    };

    const showLists = () => {
      // Not before it is known what the site keeps.
      if (!last.buckets) return;
      const due = !doc.hidden && Date.now() > readAt;
      const pages = [];
      for (const element of find("[data-footfall-page]")) {
        const { footfall, footfallPage: page } = element.dataset;
        if (listed[page]) show(element, footfall || "page.views.all", listed[page], page);
        if ((due || !(page in listed)) && !pages.includes(page)) pages.push(page);
        listed[page] = listed[page] || 0;
      }
      if (due) readAt = Date.now() + 3e4;
      readLists(pages);
    };

    // Shows what other counters' elements ask for, and the boxes that wait for it.
    const showForeign = () => {
      const names = { site_pv: "views.all", site_uv: "visitors.all", page_pv: "page.views.all" };
      for (const name in names)
        for (const element of find(`#busuanzi_value_${name},#busuanzi_${name},#vercount_value_${name}`)) {
          show(element, names[name], last, here);
          for (const box of find(`#busuanzi_container_${name},#vercount_container_${name}`))
            put(box.style, "display", "inline");
        }
    };

    const fill = () => {
      // The page must be complete, or have had time: hydration comes before, and a framework must find what
      // its server wrote.
      if (doc.readyState != "complete" && (doc.readyState == "loading" || ++ticks < 10)) return;
      if (set.fill != "off")
        for (const element of find("[data-footfall]:not([data-footfall-page])"))
          show(element, element.dataset.footfall, last, here);
      if (last.buckets) showForeign();
    };

    return (...told) => {
      [last, here] = told;
      [
        () => {
          for (const button of find("[data-footfall-opt-out]")) put(button, "ariaPressed", "" + !!store.footfallOptOut);
        },
        fill,
        showLists,
      ].forEach(attempt);
    };
  };

  addEventListener("click", event =>
    attempt(() => {
      const button = event.composedPath()[0].closest("[data-footfall-opt-out]");
      if (button) store.footfallOptOut = store.footfallOptOut ? "" : 1;
    }),
  );
})();
