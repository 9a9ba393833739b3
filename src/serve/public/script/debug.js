// Says in the console why a page sends nothing. `footfall.js` fetches this file where the page's URL ends with
// #footfall-debug, and calls what `footfall_debug` makes twice a second.
(() => {
  const attempt = part => {
    try {
      return part();
    } catch (_) {}
  };

  window.footfall_debug = (doc, set, base, site, find, take, enter, address) => {
    let said = "";
    return (last, here) => {
      const all = Document.footfall;
      const store = attempt(() => localStorage) || all;
      const reasons = [
        [!address(), "the page is on this machine, and the line has no data-localhost"],
        [address() && !here, "the service refused the page: its answer says why"],
        [!("frames" in set) && window != top, "the page is in a frame, and the line has no data-frames"],
        ["consent" in set ? !all.Agreed : all.Agreed === false, "the page has not called footfall.consent()"],
        [store.footfallOptOut, "this browser has opted out"],
        [navigator[set.gpc] > 0, "this browser asks for Global Privacy Control"],
        [navigator[set.dnt] > 0, "this browser asks for Do Not Track"],
        [set.auto == "off", "data-auto is off: until footfall.view() is called"],
        [doc.hidden, "the page is hidden"],
      ];
      const text = reasons.filter(([is]) => is).map(([, reason]) => reason).join("; ");
      if (text && text != said) console.log(`footfall sends nothing from ${site}: ${text}`);
      said = text;
    };
  };
})();
