// Makes the small form of the page script:
//
//   npm ci && node build.mjs          writes ../../src/serve/public/script/released/v<N>.js and v<N>.more.js, .rare.js, .debug.js
//   node build.mjs --check            says whether the latest ones are made from the sources
//
// A released version is never changed (tests/it/page_script.rs holds the hashes): for another one raise
// VERSION, build, and add its hashes there and its files in src/serve/public/script/mod.rs.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { brotliCompressSync, brotliDecompressSync, constants, gunzipSync, gzipSync } from "node:zlib";
import { parse } from "acorn";
import { minify } from "terser";

export const VERSION = 1;

const page = new URL("../../src/serve/public/script/", import.meta.url);
const files = { js: "footfall.js", "more.js": "more.js", "rare.js": "rare.js", "debug.js": "debug.js" };
const parts = Object.fromEntries(Object.entries(files).map(([end, source]) => [`v${VERSION}.${end}`, source]));

const options = {
  ecma: 2020,
  toplevel: true,
  compress: { passes: 4, pure_getters: true, unsafe: true, unsafe_arrows: true, unsafe_methods: true },
  mangle: { toplevel: true },
};

/** The small forms by name, made anew. Throws where a source is not of the language. */
export async function build() {
  const made = {};
  for (const [name, source] of Object.entries(parts)) {
    const text = readFileSync(new URL(source, page), "utf8").replaceAll("VERSION", VERSION);
    const { code } = await minify(text, options);
    parse(code, { ecmaVersion: 2020 });
    made[name] = code;
  }
  return made;
}

/** What packs a released file, and what unpacks it, by the ending of its packed form. */
const packers = {
  br: [
    text => brotliCompressSync(text, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: text.length } }),
    brotliDecompressSync,
  ],
  gz: [text => gzipSync(text, { level: 9 }), gunzipSync],
};

/** Whether the packed forms of a released file hold its text. */
export function isPacked(name, text) {
  return Object.entries(packers).every(([ending, [, unpack]]) => {
    const path = new URL(`released/${name}.${ending}`, page);
    return existsSync(path) && unpack(readFileSync(path)).toString() === text;
  });
}

/** The released forms of the same names. */
export function released() {
  return Object.fromEntries(
    Object.keys(parts).map(name => {
      const path = new URL(`released/${name}`, page);
      return [name, existsSync(path) ? readFileSync(path, "utf8") : ""];
    }),
  );
}

/** What `released/integrity` must hold: a line a file, its name and its hash. */
export function integrity() {
  const folder = new URL("released/", page);
  const files = readdirSync(folder).filter(name => name.endsWith(".js"));
  const hash = name => createHash("sha384").update(readFileSync(new URL(name, folder))).digest("base64");
  return files.sort().map(name => `${name} sha384-${hash(name)}\n`).join("");
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const made = await build();
  const before = released();
  for (const [name, code] of Object.entries(made)) {
    const same = before[name] === code && isPacked(name, code);
    if (process.argv.includes("--check")) process.exitCode ||= same ? 0 : 1;
    else {
      writeFileSync(new URL(`released/${name}`, page), code);
      for (const [ending, [pack]] of Object.entries(packers))
        writeFileSync(new URL(`released/${name}.${ending}`, page), pack(code));
    }
    console.log(name, `${gzipSync(code, { level: 9 }).length} bytes gzip`, same ? "as it was" : "changed");
  }
  if (!process.argv.includes("--check")) writeFileSync(new URL("released/integrity", page), integrity());
}
