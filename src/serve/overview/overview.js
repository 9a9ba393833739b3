// Keeps the figures fresh: asks for its figures alone and puts in what has changed. Without it the page stands still.
const note = document.getElementById("fresh");
const seconds = 3;
const figures = new URL(location.href);
figures.searchParams.set("part", "figures");
async function renew() {
  if (!document.hidden) {
    try {
      const answer = await fetch(figures, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
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
