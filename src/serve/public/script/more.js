// What few pages use: the live stream, figures of other pages, elements named as busuanzi and Vercount
// name theirs, buttons to opt out, and an id of the browser. `footfall.js` fetches this file for pages
// that need it and calls `footfallMore` twice a second; a page may also name it before `footfall.js`.
(() => {
  const doc = document;
  const find = selector => doc.querySelectorAll(selector);
  const query = page => new URLSearchParams({ page });
  const listed = {}; // pages of lists: 0 until they are read, then counters in which they are the page
  const rank = Math.random(); // of two streams in one browser the lower goes on
  // As `footfallMore` was told last.
  let last;
  let siteUrl;
  let take;
  let show;
  let store;
  let here;

  let readAt = 0; // when the lists are to be read anew
  let source; // the stream of this page
  let channel; // to the other pages of the site in this browser
  let heard; // until when the stream of another page may be silent
  let refused = 0; // until when no stream is tried, since one was refused

  // Reads pages of lists, at most 50 and 2,000 bytes of URL a request.
  const readLists = async pages => {
    while (pages[0]) {
      const batch = [];
      let url = siteUrl + "pages?";
      let longer = url + query(pages[0]);
      do {
        url = longer;
        batch.push(pages.shift());
        longer = url + "&" + query(pages[0]);
      } while (pages[0] && batch.length < 50 && longer.length < 2e3);
      try {
        const read = await (await fetch(url, { cache: "no-cache" })).json();
        batch.forEach((name, at) => (listed[name] = { buckets: read.buckets, page: read.pages[at] }));
      } catch (_) {}
    }
  };

  const showLists = () => {
    const due = !doc.hidden && Date.now() > readAt;
    const pages = new Set();
    for (const element of find("[data-footfall-page]")) {
      const { footfall, footfallPage: page } = element.dataset;
      if (listed[page]) show(element, footfall || "page.views.all", listed[page], page);
      if (due || !(page in listed)) pages.add(page);
      listed[page] = listed[page] || 0;
    }
    if (due) readAt = Date.now() + 3e4;
    readLists([...pages]);
  };

  // Shows what other counters' elements ask for, and the boxes that wait for it.
  const showForeign = () => {
    const names = { site_pv: "views.all", site_uv: "visitors.all", page_pv: "page.views.all" };
    for (const name in names)
      for (const element of find(`#busuanzi_value_${name},#busuanzi_${name},#vercount_value_${name}`)) {
        show(element, names[name], last, here);
        for (const box of find(`#busuanzi_container_${name},#vercount_container_${name}`)) box.style.display = "inline";
      }
  };

  const close = () => (source = source && source.close());

  // Of the visible pages of a site one streams and tells the others, twice a second; the next begins when
  // it goes (2) or was silent. Without a channel, or when refused, there is the polling.
  const stream = () => {
    const url = siteUrl + "live?" + query(here);
    if (doc.hidden || Date.now() < refused) {
      if (source) channel.postMessage([2]);
      close();
      channel = channel && channel.close();
    } else if (!channel) {
      heard = Date.now() + 1e3 + 500 * rank;
      channel = new BroadcastChannel(siteUrl);
      channel.onmessage = ({ data: [theirs, text] }) => {
        heard = theirs < 2 && Date.now() + 3e3;
        if (theirs < rank) close();
        try {
          const told = JSON.parse(text);
          // The page in it is the one that streams.
          if (!last.page || told.page.page != last.page.page) told.page = last.page;
          take(JSON.stringify(told));
        } catch (_) {}
      };
    } else if (source && source.url == url) channel.postMessage([rank]);
    else if (source || Date.now() > heard) {
      close();
      source = new EventSource(url);
      source.onerror = event => {
        if (event.target.readyState > 1) refused = Date.now() + 6e4;
      };
      source.addEventListener("counters", ({ data }) => {
        take(data);
        channel.postMessage([rank, data]);
      });
    }
  };

  doc.addEventListener("click", event => {
    if (event.target.closest("[data-footfall-opt-out]")) footfall.optOut(!store.footfallOptOut);
  });

  window.footfallMore = (...told) => {
    [last, siteUrl, take, show, store, here] = told;
    for (const button of find("[data-footfall-opt-out]")) button.ariaPressed = !!store.footfallOptOut;
    showLists();
    if (last) showForeign();
    if (window.BroadcastChannel && find("[data-live=stream]")[0]) stream();
  };

  // Where the site tells visitors apart by it, a random id that is new each day.
  window.footfallVisitor = () => {
    const day = new Date().toDateString();
    try {
      if (find("[data-identity=browser]")[0]) {
        if (!(localStorage.footfallVisitor + "").startsWith(day)) localStorage.footfallVisitor = day + rank;
        return localStorage.footfallVisitor;
      }
    } catch (_) {}
  };
})();
