// Keeps the figures fresh: asks for this page again and puts in what has changed. Without it the page stands still.
const note = document.getElementById("fresh");
const seconds = 3;
async function renew() {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(answer.status);
      // The policy that holds here does not know the nonce of that answer's style.
      const text = (await answer.text()).replace(/<style[^]*?<\/style>/, "");
      const fresh = new DOMParser().parseFromString(text, "text/html");
      for (const part of fresh.querySelectorAll("[id]")) {
        const here = document.getElementById(part.id);
        if (here && here !== note && here.innerHTML !== part.innerHTML) {
          const open = [...here.querySelectorAll("details")].map(details => details.open);
          here.innerHTML = part.innerHTML;
          here.querySelectorAll("details").forEach((details, i) => { details.open = !!open[i]; });
        }
      }
      note.textContent = "Live";
      note.className = "live";
    } catch {
      note.textContent = "Not renewed: the service does not answer";
      note.className = "lost";
    }
  }
  setTimeout(renew, seconds * 1000);
}
note.textContent = "Live";
note.className = "live";
setTimeout(renew, seconds * 1000);
