// What few pages need: other pages in the same document, reading where no beacon is sent or answered, an image in
// place of a beacon, the live stream, and an id of the browser. `footfall.js` fetches this file for pages that
// need it and calls what `footfall_rare` makes twice a second; a page may also name it before `footfall.js`.
(() => {
  const attempt = part => {
    try {
      return part();
    } catch (_) {}
  };
  const rank = Math.random(); // of two streams in one browser the lower goes on
  const store = attempt(() => localStorage) || Document.footfall || {};
  const query = page => "page=" + encodeURIComponent(page);

  window.footfall_rare = (doc, set, base, site, find, take, enter, address, beaconUrl) => {
    const siteUrl = base + "api/v1/sites/" + site + "/";
    const current = () => attempt(() => navigation.currentEntry.key);
    const pages = {}; // what pages are named, by location
    // As told last: `missed` is the beacon of a view that was not answered, `reads` that the page is to be read.
    let last, here, at, missed, reads;
    let name; // what the page was named last
    // Of the history, when it was shown; not known where the document has made others.
    let entry = attempt(() => navigation.entries().filter(entry => entry.sameDocument).length < 2 && current());
    let waited = 0; // ticks for another name
    let learned; // the counters by which it is known when the site's day ends
    let imaged; // the beacon that was sent as an image
    let source; // the stream of this page
    let channel; // to the other pages of the site in this browser
    let heard; // until when the stream of another page may be silent
    let refused = 0; // until when no stream is tried, since one was refused

    // A page as it is read: no token of a query stands in a URL that caches keep, and no fragment.
    const path = (url, names = last.page_query || []) => {
      const { pathname, search } = Object.assign(doc.createElement("a"), { href: url });
      const pairs = search.slice(1).split("&");
      const kept = pairs.filter(pair => names.includes([...new URLSearchParams(pair).keys()][0])).join("&");
      return (attempt(() => decodeURI(pathname)) || pathname) + (kept && "?" + kept);
    };

    // A page as the service sees it, nearly: what it answered is compared too.
    const plain = url =>
      path(url)
        .normalize()
        .replace(/\/+/g, "/")
        .replace(/(\/(index\.\w+)?)+(?=\?|$)/i, "") || "/";

    // What the page is named by data-page or its canonical link. Libraries that change pages without loading
    // a document put in another line or link, some later than they change the location.
    const named = () => {
      const line = find("script[data-page]").pop();
      return line ? line.dataset.page : (doc.querySelector("head link[rel~=canonical]") || 0).href;
    };

    // Counts a change of the location, if that is another page. Endless scrolling replaces the entry of the
    // history: there a page counts once.
    const look = () => {
      const now = address();
      const page = plain(now);
      if (now == at) {
        name = named();
        entry = current();
      } else if (
        set.auto != "off" &&
        page != plain(at) &&
        page != (last.page || 0).page &&
        !(name && name == named() && ++waited < 6)
      ) {
        waited = 0;
        if (name != named()) pages[now] = name = named();
        enter(pages[now] || now, 1, entry && entry == current());
      }
    };

    // Reads the counters. Which names of a query the site keeps is known when it has answered.
    const readCounters = async names => {
      const page = here;
      const wanted = here && path(here, names);
      const answer = await fetch(siteUrl + "counters?" + (here && query(wanted)), { cache: "no-cache" });
      const text = await answer.text();
      const { page_query } = JSON.parse(text);
      if (page != here) return;
      if (wanted && path(here, page_query) != wanted) readCounters(page_query).catch(attempt);
      else take(text);
    };

    // How much is left of the site's day is told by when its figures changed last, if that is today.
    const learn = () => {
      const [day, , id] = store.footfallVisitor.split(" ");
      const [today, time] = last.at.split(/[T+-](?=\d\d:)/);
      if (learned == last || today != last.buckets.day) return;
      learned = last;
      const end = Date.now() + 864e5 - Date.parse(`1970-01-01T${time}Z`);
      store.footfallVisitor = [today, end, day && day != today ? "" : id].join(" ");
    };

    const close = () => (source = source && source.close());

    const hear = ({ data: [theirs, text] }) => {
      heard = theirs < 2 && Date.now() + 3e3;
      if (theirs < rank) close();
      if (!text || !last.page) return;
      const told = JSON.parse(text);
      // The page in it is the one that streams.
      if (told.page.page != last.page.page) told.page = last.page;
      take(JSON.stringify(told));
    };

    // Of the visible pages of a site one streams and tells the others, twice a second; the next begins when
    // it goes (2) or was silent. Without a channel, or when refused, there are the pings.
    const stream = () => {
      if (set.live != "stream") return;
      const url = siteUrl + "live?" + (here && query(path(here)));
      if (doc.hidden || Date.now() < refused) {
        if (source) channel.postMessage([2]);
        close();
        channel = channel && channel.close();
      } else if (!channel) {
        heard = Date.now() + 1e3 + 500 * rank;
        channel = new BroadcastChannel(siteUrl);
        channel.onmessage = event => attempt(() => hear(event));
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

    // May pass where fetch does not.
    const image = () => {
      if (!missed || missed == imaged) return;
      imaged = missed;
      new Image().src = beaconUrl + ".gif?" + new URLSearchParams(JSON.parse(missed));
    };

    // What is heard between two ticks goes with the counters that came last.
    doc.addEventListener("footfall:counters", ({ detail }) => {
      if (detail.site == last.site) last = detail;
    });

    return (...told) => {
      [last, here, at, missed, reads] = told;
      if (!name) pages[at] = name = here;
      [
        look,
        learn,
        () => reads && readCounters().catch(attempt),
        image,
        stream,
      ].forEach(attempt);
    };
  };

  // Where the site tells visitors apart by it, a random id that is new each day. Kept are the site's day, when that
  // ends by the reader's clock, which `learn` finds out, and the id.
  window.footfallVisitor = () => {
    if (!attempt(() => Document.prototype.querySelector.call(document, "script[data-identity=browser]"))) return;
    const [, end, kept] = (store.footfallVisitor || "").split(" ");
    if (kept && Date.now() < end) return kept;
    const id = `${Date.now()}-${Math.random()}-${new Event("").timeStamp}`;
    attempt(() => (store.footfallVisitor = ["", Date.now() + 864e5, id].join(" ")));
    return id;
  };
})();
