"use strict";
// Sorts tables, chooses a funnel, and reads responses. Whatever models made is set as text, never as HTML.
(() => {
  const ROW = 52;
  const data = JSON.parse(document.getElementById("data").textContent);
  const { items, sets, responses, pairs, starts, prompts } = data;
  const [ID, BENCHMARK, SPLIT, QUESTION, CHOICES, ANSWER] = [0, 1, 2, 3, 4, 5];
  const $ = (selector) => document.querySelector(selector);
  const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

  function make(tag, options = {}, ...children) {
    const { text, ...attributes } = options;
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) if (value !== false) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // Tables: a column's name sorts by it, up and then down.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const numeric = head.classList.contains("n");
      const value = (row) => {
        const cell = row.cells[column];
        return numeric ? (cell.dataset.n === undefined ? NaN : Number(cell.dataset.n)) : cell.textContent;
      };
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
      // Empty cells come last either way.
      rows.sort(([a], [b]) => {
        const lacking = numeric ? isNaN(a) - isNaN(b) : (a === "") - (b === "");
        return lacking || (down ? compare(b, a) : compare(a, b));
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  }

  // The funnel: one refinement at a time.
  $("#funnel-choice")?.addEventListener("change", (event) => {
    document.querySelectorAll(".funnel").forEach((funnel, number) => { funnel.hidden = number !== event.target.selectedIndex; });
  });

  // The reader. Responses of each item, by their places in the columns.
  const first = new Int32Array(items.length + 1);
  for (const item of responses.item) first[item + 1]++;
  for (let i = 0; i < items.length; i++) first[i + 1] += first[i];
  const ordered = new Int32Array(responses.item.length);
  const filled = first.slice();
  responses.item.forEach((item, place) => { ordered[filled[item]++] = place; });
  const of = (item) => ordered.subarray(first[item], first[item + 1]);
  const isPlain = new Uint8Array(sets.length);
  sets.forEach((set, number) => { isPlain[number] = set.kind !== "pairs" ? 1 : 0; });

  const form = $(".filters"), list = $(".list"), space = $(".space"), detail = $(".detail"), found = $(".found");
  const fields = form.elements;
  const splits = { evaluated: "test", sampled: "train", pairs: "train" };
  const candidates = { evaluated: [], sampled: [], pairs: [...pairs.item.keys()] };
  items.forEach((item, place) => { if (first[place] < first[place + 1]) candidates[item[SPLIT] === "test" ? "evaluated" : "sampled"].push(place); });
  let rows = [], matching = new Set(), selected = -1, wanted = null;

  const view = () => fields.view.value;
  const itemOf = (row) => view() === "pairs" ? pairs.item[row] : row;
  const placesOf = (row) => view() === "pairs" ? pairs.sides[row].slice(0, 2).filter((place) => place >= 0) : of(row);
  const verdictOf = (place) => responses.correct[place] ? "correct" : responses.extracted[place] === null ? "none" : "incorrect";
  const styleOf = (place) => responses.style[place];

  // Which sets a view has, and what its filters offer.
  const setsOf = (name) => sets.map((set, number) => [set, number]).filter(([set, number]) => usedIn[name].has(number));
  const usedIn = { evaluated: new Set(), sampled: new Set(), pairs: new Set(pairs.set) };
  responses.item.forEach((item, place) => { if (isPlain[responses.set[place]]) usedIn[items[item][SPLIT] === "test" ? "evaluated" : "sampled"].add(responses.set[place]); });

  function offer(name, options) {
    const field = fields[name], kept = field.value;
    field.replaceChildren(make("option", { value: "", text: "any" }), ...options.map(([value, text]) => make("option", { value, text })));
    field.value = options.some(([value]) => value === kept) ? kept : "";
    field.closest("label").hidden = options.length < 2 && !(name === "change" && options.length);
  }

  const ancestors = (number) => { const chain = []; for (let at = starts[number]; at !== undefined; at = starts[at]) chain.push(at); return chain; };

  function offerAll() {
    const mine = setsOf(view()), distinct = (values) => [...new Set(values.filter(Boolean))];
    const plain = (name, title = (value) => value) => offer(name, distinct(mine.map(([set]) => set[name])).map((value) => [value, title(value)]));
    offer("benchmark", distinct(mine.map(([set]) => String(set.benchmark + 1))).map((value) => [value, data.benchmarks[value - 1][1]]));
    plain("student"); plain("teacher"); plain("seed"); plain("arm", (value) => data.arms[value]);
    offer("style", distinct(mine.flatMap(([set]) => Object.keys(set.asked))).map((value) => [value, data.styles[value] ?? value]));
    const steps = view() !== "evaluated" ? [] : distinct(mine.flatMap(([set, number]) => ancestors(number).map((at) => `${sets[at].arm}>${set.arm}`)));
    offer("change", steps.flatMap((step) => {
      const [from, to] = step.split(">").map((arm) => data.arms[arm]);
      return [[`gained:${step}`, `${from} → ${to.toLowerCase()}: became correct`], [`lost:${step}`, `${from} → ${to.toLowerCase()}: became incorrect`]];
    }));
    fields.verdict.closest("label").hidden = view() === "pairs";
    fields.arm.closest("label").hidden ||= view() === "pairs";
    if (view() === "pairs") { fields.verdict.value = ""; fields.arm.value = ""; }
  }

  // Lower-cased once, when the first text is looked for.
  let haystack = null, questions = null;
  function prepareSearch() {
    haystack ??= responses.text.map((text) => text.toLowerCase());
    questions ??= items.map((item) => [item[ID], item[QUESTION], ...item[CHOICES]].join("\n").toLowerCase());
  }

  // Of several answers to an item, most of them count, as in report/page/changes.py.
  const mostly = (places) => 2 * places.filter((place) => responses.correct[place]).length > places.length;

  function changed(place, kind, from, to) {
    const number = responses.set[place];
    if (sets[number].arm !== to) return false;
    const at = ancestors(number).find((other) => sets[other].arm === from);
    if (at === undefined) return false;
    const [before, after] = [at, number].map((wanted) => of(responses.item[place]).filter((other) => responses.set[other] === wanted));
    return before.length > 0 && mostly(after) === (kind === "gained") && mostly(before) !== mostly(after);
  }

  function filter() {
    const started = performance.now();
    const now = view(), text = fields.text.value.trim().toLowerCase(), benchmark = fields.benchmark.value;
    const least = fields.least.value === "" ? -1 : Number(fields.least.value);
    const most = fields.most.value === "" ? Infinity : Number(fields.most.value);
    const verdict = fields.verdict.value, style = fields.style.value;
    const [kind, step] = fields.change.value.split(":"), [from, to] = (step ?? "").split(">");
    if (text) prepareSearch();
    const allowed = sets.map((set) => ["student", "teacher", "seed", "arm"].every((name) => !fields[name].value || set[name] === fields[name].value || (name !== "arm" && !set[name])));
    // A teacher is no student's, and only counts where nobody chose a student.
    sets.forEach((set, number) => { if (set.kind === "teacher" && (fields.student.value || fields.seed.value)) allowed[number] = false; });
    const suits = (place) => {
      if (now !== "pairs" && (!allowed[responses.set[place]] || !isPlain[responses.set[place]])) return false;
      if (verdict && verdictOf(place) !== verdict) return false;
      if (style && styleOf(place) !== style) return false;
      if (responses.tokens[place] < least || responses.tokens[place] > most) return false;
      return !kind || changed(place, kind, from, to);
    };
    const all = candidates[now];
    matching = new Set();
    rows = all.filter((row) => {
      const item = itemOf(row);
      if (benchmark && items[item][BENCHMARK] !== benchmark - 1) return false;
      if (now === "pairs" && !allowed[pairs.set[row]]) return false;
      const inQuestion = !text || questions[item].includes(text);
      let any = false;
      for (const place of placesOf(row)) {
        if (suits(place) && (inQuestion || haystack[place].includes(text))) { matching.add(place); any = true; }
      }
      return any;
    });
    const what = now === "pairs" ? "pair" : "item";
    const known = `${rows.length === all.length ? "" : `${rows.length.toLocaleString("en")} of `}${many(all.length, what)}`;
    found.textContent = now === "pairs" ? known : `${known}, ${many(matching.size, "matching response")}`;
    found.dataset.rows = rows.length; found.dataset.responses = matching.size;
    const arms = [...new Set(setsOf(now).map(([set]) => data.arms[set.arm]))].map((arm) => `${arm[0]}: ${arm.toLowerCase()}`);
    $(".signs").textContent = now === "evaluated" ? `${arms.join(", ")}; ✓ correct, ✗ incorrect, – no answer extracted` : "";
    list.setAttribute("aria-label", now === "pairs" ? "Pairs" : "Items");
    space.style.height = `${rows.length * ROW}px`;
    const kept = wanted === null ? -1 : rows.indexOf(wanted);
    list.scrollTop = kept < 0 ? 0 : Math.max(0, kept * ROW - list.clientHeight / 3);
    space.replaceChildren();
    select(kept < 0 ? Math.min(0, rows.length - 1) : kept, false);
    found.dataset.ms = Math.round(performance.now() - started);
  }

  // Only the rows in sight are in the document.
  function draw() {
    const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 6);
    const to = Math.min(rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 6);
    const shown = new Map([...space.children].map((row) => [Number(row.dataset.place), row]));
    for (const [place, row] of shown) if (place < from || place >= to) row.remove();
    for (let place = from; place < to; place++) if (!shown.has(place)) space.append(drawRow(place));
    for (const row of space.children) row.setAttribute("aria-selected", Number(row.dataset.place) === selected);
    if (selected >= 0) list.setAttribute("aria-activedescendant", `row-${selected}`); else list.removeAttribute("aria-activedescendant");
  }

  const SIGNS = { correct: "✓", incorrect: "✗", none: "–" };
  function factsOf(row) {
    if (view() === "pairs") return pairs.split[row];
    const places = [...of(row)].filter((place) => isPlain[responses.set[place]]);
    if (view() === "evaluated" && places.length <= 8) return places.map((place) => data.arms[sets[responses.set[place]].arm][0] + SIGNS[verdictOf(place)]).join(" ");
    return `${places.filter((place) => responses.correct[place]).length} of ${places.length} correct`;
  }

  function drawRow(place) {
    const item = items[itemOf(rows[place])];
    const row = make("div", { class: "row", role: "option", id: `row-${place}`, "aria-setsize": rows.length, "aria-posinset": place + 1, style: `top: ${place * ROW}px` },
      make("p", { text: item[QUESTION].slice(0, 160), dir: "auto" }),
      make("div", { class: "facts" }, make("span", { text: data.benchmarks[item[BENCHMARK]][1] }), make("b", { text: factsOf(rows[place]) })));
    row.dataset.place = place;
    return row;
  }

  function select(place, byReader = true) {
    selected = place;
    wanted = place < 0 ? wanted : rows[place];
    if (place >= 0) {
      const top = place * ROW;
      if (top < list.scrollTop) list.scrollTop = top;
      if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    }
    draw();
    show();
    if (byReader && place >= 0) remember();
  }

  const linkOf = (row) => {
    const item = items[itemOf(row)];
    return `#item=${encodeURIComponent(item[ID])}&benchmark=${encodeURIComponent(data.benchmarks[item[BENCHMARK]][0])}&view=${view()}`;
  };
  // A page inside another one's frame, or in a data: address, has no history to write to.
  function remember() { if (selected >= 0) try { history.replaceState(null, "", linkOf(rows[selected])); } catch { /* links still work from elsewhere */ } }

  // One item: the question with all its options, then the responses side by side.
  function show() {
    if (selected < 0) { detail.replaceChildren(make("p", { class: "note", text: "Nothing matches these filters." })); return; }
    const row = rows[selected], place = itemOf(row), item = items[place];
    const copy = make("button", { type: "button", text: "Copy link" });
    copy.addEventListener("click", async () => {
      const link = location.href.split("#")[0] + linkOf(row);
      try { await navigator.clipboard.writeText(link); copy.textContent = "Copied"; } catch { remember(); copy.textContent = "It is in the address bar"; }
    });
    const facts = `${data.benchmarks[item[BENCHMARK]][1]}, ${item[SPLIT] === "test" ? "test split" : "training split"}`;
    const parts = [make("h3", {}, make("span", { text: facts }), make("code", { text: item[ID] }), copy), make("p", { class: "question", dir: "auto", text: item[QUESTION] })];
    const label = (number) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number] ?? String(number + 1);
    if (item[CHOICES].length) {
      parts.push(make("ul", { class: "options" }, ...item[CHOICES].map((choice, number) => make("li", { dir: "auto", class: item[ANSWER].split(", ").includes(label(number)) ? "target" : "", text: `${label(number)}) ${choice}` }))));
    } else parts.push(make("p", { class: "note", text: `Correct answer: ${item[ANSWER]}` }));
    parts.push(...(view() === "pairs" ? sidesOf(row) : responsesOf(place)), ...promptsOf(row, place));
    detail.replaceChildren(...parts);
  }

  function card(place, head, below) {
    const verdict = verdictOf(place), number = responses.set[place];
    const answer = responses.extracted[place], tokens = responses.tokens[place];
    const words = verdict === "none" ? "– no answer extracted" : verdict === "correct" ? "✓ correct" : "✗ incorrect";
    // What a pair's own side lacks of a judged response is left out.
    const judged = sets[number].kind !== "pairs";
    const facts = [answer && `answer ${answer}`, tokens && many(tokens, "token"), responses.cut[place] && "cut off at the limit"].filter(Boolean).join(" · ");
    return make("section", { class: `card ${verdict}${view() === "pairs" || matching.has(place) ? "" : " unmatched"}` },
      make("header", { text: head }, ...(below ? [make("small", { text: below })] : [])),
      make("div", { class: "said", dir: "auto", tabindex: responses.text[place].length > 900 ? "0" : false, text: responses.text[place] }),
      make("footer", {}, make("span", { class: verdict, text: judged || verdict === "correct" ? words : "✗ incorrect" }), facts ? ` · ${facts}` : ""));
  }

  // Which one of several answers of a model to an item it is.
  function ordinal(place, places) {
    const mine = places.filter((other) => responses.set[other] === responses.set[place]);
    return mine.length > 1 ? `, answer ${mine.indexOf(place) + 1} of ${mine.length}` : "";
  }

  function responsesOf(item) {
    const places = [...of(item)].filter((place) => isPlain[responses.set[place]] && inScope(sets[responses.set[place]]));
    if (view() === "evaluated") return [make("h4", { text: "Side by side" }), make("div", { class: "cards" }, ...places.map((place) => { const set = sets[responses.set[place]]; return card(place, set.arm_title + ordinal(place, places), set.label); }))];
    const groups = new Map();
    for (const place of places) { const key = `${responses.set[place]}/${styleOf(place)}`; groups.set(key, [...(groups.get(key) ?? []), place]); }
    return [...groups.values()].flatMap((group) => {
      const set = sets[responses.set[group[0]]], style = data.styles[styleOf(group[0])] ?? styleOf(group[0]);
      const right = group.filter((place) => responses.correct[place]).length;
      return [make("h4", { text: `${set.label}, asked for ${/^[aeiou]/.test(style) ? "an" : "a"} ${style}: ${right} of ${group.length} correct` }), make("div", { class: "cards" }, ...group.map((place, number) => card(place, set.kind === "teacher" ? "Teacher" : `Path ${number + 1}`)))];
    });
  }

  function clear() { for (const field of fields) if (field.name && field.name !== "view") field.value = ""; }

  // The arms beside each other are those of the chosen student, teacher and seed.
  const inScope = (set) => ["student", "teacher", "seed"].every((name) => !fields[name].value || !set[name] || set[name] === fields[name].value);

  function sidesOf(row) {
    const [chosen, rejected, of1, of2] = pairs.sides[row];
    const cards = [["Chosen", chosen, of1], ["Rejected", rejected, of2]].filter(([, place]) => place >= 0).map(([head, place, source]) => card(place, head, source));
    const all = make("button", { type: "button", class: "more", text: "All sampled paths of this item" });
    all.addEventListener("click", () => open(pairs.item[row], "sampled"));
    return [make("h4", { text: `${sets[pairs.set[row]].label}; ${pairs.split[row]}` }), make("div", { class: "cards" }, ...cards), make("p", {}, all)];
  }

  // A prompt as data/prompts.py puts it together.
  function promptOf(asked, item) {
    if (asked.written !== undefined) return prompts[asked.written].prefix + prompts[asked.written].rest[item[ID]];
    const letters = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"].slice(0, item[CHOICES].length);
    const examples = asked.examples.filter(([id]) => id !== item[ID]).slice(0, asked.number).map(([, lines]) => lines);
    const lines = [asked.instruction.replaceAll("{labels}", () => letters.join(", ")), ...examples, `Question: ${item[QUESTION]}`];
    if (letters.length) lines.push("Choices:", ...letters.map((letter, number) => `${letter}) ${item[CHOICES][number]}`));
    return [...lines, ...asked.ending.map((line) => line.replaceAll("{answer}", () => item[ANSWER]))].join("\n");
  }

  function promptsOf(row, item) {
    const used = new Map();
    for (const place of view() === "pairs" ? placesOf(row) : of(item)) {
      const set = sets[responses.set[place]], asked = set.asked[styleOf(place)];
      if (!asked || !inScope(set)) continue;
      const text = promptOf(asked, items[item]);
      const system = asked.written !== undefined ? "none but what stands in it" : asked.system === null ? "the chat template’s own, if it has one" : asked.system || "none";
      const key = JSON.stringify([system, text]);
      used.set(key, [...(used.get(key) ?? []), set.arm_title + (styleOf(place) && ` (${data.styles[styleOf(place)] ?? styleOf(place)})`)]);
    }
    return [...used].map(([key, who]) => {
      const [system, text] = JSON.parse(key);
      return make("details", { class: "prompt" }, make("summary", { text: `Prompt: ${[...new Set(who)].join(", ").toLowerCase()}` }), make("p", { class: "note", text: `System message: ${system}` }), make("pre", { dir: "auto", tabindex: "0", text }));
    });
  }

  // Links: #item=ID&benchmark=NAME&view=VIEW opens one item, #read=VIEW&set=N&from=N&change=KIND filters.
  function open(place, name) {
    clear(); fields.view.value = name; offerAll();
    wanted = name === "pairs" ? pairs.item.indexOf(place) : place;
    filter();
    remember();
    $("#reader").scrollIntoView();
  }

  function follow() {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (asked.has("item")) {
      const known = (name) => candidates[name].some((row) => (name === "pairs" ? pairs.item[row] : row) === place);
      const fits = (item) => item[ID] === asked.get("item") && (!asked.get("benchmark") || data.benchmarks[item[BENCHMARK]][0] === asked.get("benchmark"));
      const view = asked.get("view") in splits ? asked.get("view") : null;
      let place = items.findIndex((item) => fits(item) && (!view || item[SPLIT] === splits[view]));
      if (place < 0) { found.textContent = `There is no item ${asked.get("item")} on this page.`; $("#reader").scrollIntoView(); return; }
      open(place, view && known(view) ? view : items[place][SPLIT] === "test" ? "evaluated" : "sampled");
    } else if (asked.get("read") in splits) {
      const set = sets[asked.get("set")], start = sets[asked.get("from")];
      clear(); fields.view.value = asked.get("read"); offerAll();
      if (set && start) {
        fields.benchmark.value = String(set.benchmark + 1);
        for (const name of ["student", "teacher", "seed"]) if ([...fields[name].options].some((option) => option.value === set[name])) fields[name].value = fields[name].options.length > 2 ? set[name] : "";
        fields.change.value = `${asked.get("change")}:${start.arm}>${set.arm}`;
      }
      wanted = null; filter();
      $("#reader").scrollIntoView();
    }
  }

  list.addEventListener("scroll", draw, { passive: true });
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    select(Number(row.dataset.place));
    if (detail.getBoundingClientRect().top > innerHeight * .8) detail.scrollIntoView({ behavior: "smooth" });
  });
  list.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const to = { ArrowDown: selected + 1, ArrowUp: selected - 1, PageDown: selected + page, PageUp: selected - page, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Enter" && selected >= 0) detail.focus();
    if (to === undefined || !rows.length) return;
    event.preventDefault();
    select(Math.min(rows.length - 1, Math.max(0, to)));
  });
  let waiting = 0;
  form.addEventListener("input", (event) => {
    if (event.target.name === "view") { wanted = null; offerAll(); filter(); return; }
    clearTimeout(waiting);
    waiting = setTimeout(filter, event.target.name === "text" ? 120 : 0);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  $(".clear").addEventListener("click", () => { clear(); filter(); });
  for (const input of form.querySelectorAll("[name=view]")) {
    const count = candidates[input.value].length;
    input.nextElementSibling.textContent += ` (${count.toLocaleString("en")})`;
    input.parentElement.hidden = !count;
  }
  fields.view.value = Object.keys(candidates).find((name) => candidates[name].length) ?? "evaluated";
  addEventListener("hashchange", follow);
  addEventListener("resize", draw);
  offerAll(); filter(); follow();
})();
