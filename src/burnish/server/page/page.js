// The page of `burnish serve`. Everything that a model or a person wrote enters the document as text nodes.

// ---------------------------------------------------------------- Small things

const byId = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

/** An element with properties (class, data-…, aria-… and the rest as attributes; on… as listeners) and children. */
function make(tag, properties = {}, ...children) {
  const drawn = ['svg', 'path', 'line', 'circle', 'text'].includes(tag);
  const element = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button; name is its data-testid. */
const button = (text, onclick, name = null, kind = null) =>
  make('button', { type: 'button', class: kind, onclick, 'data-testid': name }, text);

/** Text of unknown writing, kept from turning the text around it. */
const isolated = (text) => make('bdi', {}, text);

const fixed = (number, digits = 3) => number.toFixed(digits);
const signed = (number, digits = 2) => (number < 0 ? '−' : '+') + Math.abs(number).toFixed(digits);
const clamp = (number, low, high) => Math.min(high, Math.max(low, number));
const rounded = (number) => Math.round(number * 100) / 100;
const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000;
const count = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;
const said = (text) => byId('announce').replaceChildren(text);

/** New children; the keyboard's place stays on the same control, or on the first one. */
function refill(box, ...children) {
  const active = box.contains(document.activeElement) ? document.activeElement : null;
  box.replaceChildren(...children.filter(Boolean));
  if (!active) return;
  const same = [...box.querySelectorAll('button, input')].find((one) => active.dataset.testid && one.dataset.testid === active.dataset.testid);
  (same ?? box.querySelector('button'))?.focus();
}

/** Waits, and stops waiting when the signal says so. */
function rest(milliseconds, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener('abort', () => { clearTimeout(timer); fail(signal.reason); }, { once: true });
  });
}

// ---------------------------------------------------------------- State

const KEPT = 'burnish.page', KEY = 'burnish.key';
const LANGUAGES = { en: 'English', ko: '한국어' };
const EXAMPLES = {
  en: ['Describe the sea at night', 'Explain why leaves change colour', 'Write to a customer whose order is late'],
  ko: ['밤바다를 묘사해 줘', '단풍이 드는 까닭을 설명해 줘', '짧은 이야기를 하나 써 줘'],
};

/** What survives a reload. The conversation does not: it is never stored. */
const kept = {
  values: {}, language: 'en', temperature: 0.7, tokens: 256, seed: newSeed(),
  profile: null, using: false, teaching: false, tab: 'steer',
  ...JSON.parse(sessionStorage.getItem(KEPT) ?? '{}'),
};
const keep = () => sessionStorage.setItem(KEPT, JSON.stringify(kept));

const server = { status: null, directions: [], profiles: [] };
let turns = [];
let running = null; // the AbortController of the answers being written
let lastChoice = null; // the turn whose choice an undo would take back

const profile = () => server.profiles.find((one) => one.name === kept.profile) ?? null;
const shownDirections = () => server.directions.filter((one) => one.language === null || one.language === kept.language);

// ---------------------------------------------------------------- Notices

/** One calm line above the conversation, with what can be done about it. */
function notice(text, { fine = false, action = null, again = null } = {}) {
  const close = () => byId('notices').replaceChildren();
  byId('notices').replaceChildren(make('div', { class: fine ? 'notice fine' : 'notice', 'data-testid': 'notice' },
    make('p', { dir: 'auto' }, text),
    action && button(action, () => { close(); again(); }, 'notice-action'),
    button('Dismiss', close, 'notice-dismiss', 'link')));
  const shown = byId('notices').firstChild;
  if (fine) setTimeout(() => shown.remove(), 7000);
}

/** Runs a task; what goes wrong becomes a notice. Returns undefined then. */
async function attempt(task, again = null) {
  try {
    return await task();
  } catch (error) {
    if (error.name !== 'AbortError') report(error, again);
    return undefined;
  }
}

function report(error, again = null) {
  if (!(error instanceof Refusal)) throw error;
  notice(error.message, again ? { action: 'Try again', again } : {});
}

// ---------------------------------------------------------------- Server

/** The server said no, or was not there (status 0). The message is for people. */
class Refusal extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

const LOST = 'The connection to the server is lost. What is on this page stays; it is tried again every few seconds.';
const WAITS = 4; // times that a request waits for a busy server

/** The response of a request: asks for a key, waits when the server is busy. Raises Refusal. */
async function request(path, { method = 'GET', body, signal } = {}) {
  for (let waits = 0; ; ) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(body && { 'Content-Type': 'application/json' }) };
    const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) }).catch(lost);
    if (response.ok) return response;
    if (response.status === 401) {
      if (sessionStorage.getItem(KEY) === key) await askKey(key !== null);
    } else if (response.status === 429 && response.headers.has('Retry-After') && waits++ < WAITS) {
      const seconds = clamp(Number(response.headers.get('Retry-After')) || 1, 1, 60);
      notice(`The server is busy. Trying again in ${count(seconds, 'second')}.`);
      await rest(1000 * seconds, signal);
      byId('notices').replaceChildren();
    } else throw await refusal(response);
  }
}

/** Of what fetching or reading threw: a connection that is lost is a Refusal, and is looked for again. */
function lost(error) {
  if (error.name !== 'TypeError') throw error;
  reconnect();
  throw new Refusal(LOST, 0);
}

/** The server's own words where it has some. */
async function refusal(response) {
  const text = await response.text();
  let message = `The server answered ${response.status}.`;
  try {
    message = JSON.parse(text).error.message ?? message;
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
  }
  return new Refusal(message, response.status);
}

const get = async (path, signal) => (await request(path, { signal })).json();
const send = async (method, path, body, signal) => (await request(path, { method, body, signal })).json();

let reconnecting = false;
/** Asks until the server is back, then says so. */
async function reconnect() {
  if (reconnecting) return;
  reconnecting = true;
  for (let back = false; !back; ) {
    await rest(2000);
    back = await fetch('/healthz').then((response) => response.ok, () => false);
  }
  reconnecting = false;
  notice('Connected again.', { fine: true });
  if (server.status === null) start(); else changed({ anew: true });
}

/** The pieces of a chat answer as they come, and why it ended. Raises Refusal. */
async function* chat(body, signal) {
  const response = await request('/v1/chat/completions', { method: 'POST', body: { ...body, stream: true }, signal });
  let rest = '';
  const decoder = new TextDecoder();
  for (const reader = response.body.getReader(); ; ) {
    const { value, done } = await reader.read().catch(lost);
    if (done) break;
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith('data:')) continue;
      const data = line.slice(5).trim();
      if (data === '[DONE]') return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refusal(chunk.error.message, 500);
      const choice = chunk.choices[0];
      if (choice) yield { text: choice.delta.content ?? '', reason: choice.finish_reason };
    }
  }
  throw new Refusal('The answer broke off before its end. Regenerate it.', 0);
}

// ---------------------------------------------------------------- Dialogs

/** Opens a dialog; `onsubmit` returns true when it may close. Resolves when it is closed. */
function ask(id, onsubmit) {
  const dialog = byId(id), form = dialog.querySelector('form');
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (await onsubmit()) dialog.close('sure');
  };
  dialog.querySelector('[data-close]').onclick = () => dialog.close('');
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener('close', () => done(dialog.returnValue === 'sure'), { once: true }));
}

let askingKey = null;
/** Asks for the key, once for all that wait. Raises Refusal when none is given. */
function askKey(refused) {
  if (refused) byId('key-why').textContent = 'The server does not accept that key. Check it, and try again.';
  askingKey ??= ask('key-dialog', () => {
    const key = byId('key').value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) return false;
    sessionStorage.setItem(KEY, key);
    return true;
  }).then((sure) => {
    askingKey = null;
    byId('key').value = '';
    if (!sure) throw new Refusal('Without a key the server answers nothing.', 401);
  });
  return askingKey;
}

// ---------------------------------------------------------------- Expression

/** A name as the mix language takes it: in quotes when it is more than letters, digits and - _ . / */
const quoted = (name) => (/^(?![\d-]|\.\d)[\p{L}\p{N}_./-]+$/u.test(name) ? name : `"${name}"`);

/** Terms of the sliders that are shown and not at zero. */
const terms = () => shownDirections().filter((one) => kept.values[one.name]).map((one) => [kept.values[one.name], one.name]);

/** The model of the enhanced side: base, the profile in use, and the sliders. */
function expression() {
  let text = kept.using && profile() ? profile().model : 'base';
  for (const [value, name] of terms()) {
    const weight = Math.abs(value) === 1 ? '' : `${Math.abs(value)} `;
    text += (value < 0 ? ' - ' : text === 'base' ? '+' : ' + ') + weight + quoted(name); // a minus needs its spaces
  }
  return text;
}

/** Everything that follows from another mix. */
function changed({ anew = false } = {}) {
  keep();
  const model = expression(), other = byId('expression').textContent !== model;
  for (const id of ['expression', 'summary']) byId(id).textContent = model;
  byId('reset-all').disabled = terms().length === 0;
  renderSnippet(model);
  if (!other && !anew) return;
  byId('dose-drawing').replaceChildren();
  byId('dose').disabled = model === 'base';
  measureDamage(model);
}

function renderSnippet(model) {
  const text = (value) => JSON.stringify(value); // a JSON string is a Python string too
  byId('snippet').textContent = `from openai import OpenAI

client = OpenAI(base_url=${text(`${location.origin}/v1`)}, api_key=${text(sessionStorage.getItem(KEY) ? 'YOUR_KEY' : 'local')})
answer = client.chat.completions.create(
    model=${text(model)},
    messages=[{"role": "user", "content": ${text(turns.at(-1)?.prompt ?? EXAMPLES[kept.language][0])}}],
    temperature=${kept.temperature},
    max_tokens=${kept.tokens},
    seed=${kept.seed},
)
print(answer.choices[0].message.content)`;
}

/** Copies the text of an element, or selects it where the browser gives no clipboard. */
async function copy(element, pressed) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(element.textContent);
    const before = pressed.textContent;
    pressed.textContent = 'Copied';
    setTimeout(() => { pressed.textContent = before; }, 1500);
  } else {
    getSelection().selectAllChildren(element);
    notice('This browser lets no page copy from here. The text is selected: copy it with the keyboard.');
  }
}

// ---------------------------------------------------------------- Sliders

const GROUPS = { domain: 'Domains', axis: 'Style', enhancement: 'Loaded enhancements' };

function renderSliders() {
  const groups = Object.entries(GROUPS).map(([kind, title]) => {
    const rows = shownDirections().filter((one) => one.kind === kind).map(slider);
    return rows.length > 0 && make('fieldset', { 'data-testid': `group-${kind}` }, make('legend', {}, title), ...rows);
  });
  byId('sliders').replaceChildren(...groups.filter(Boolean));
}

/** One direction: a slider, its number, and the way back to zero. */
function slider({ name, title, description, poles, low, high, language }) {
  const id = `slider-${encodeURIComponent(name)}`;
  const range = make('input', { type: 'range', id, min: low, max: high, step: 0.05, 'data-testid': `slider-${name}`, 'aria-describedby': description ? `${id}-help` : null });
  const number = make('input', { type: 'number', min: low, max: high, step: 0.05, inputmode: 'decimal', 'aria-label': `${title}, number`, 'data-testid': `number-${name}` });
  const reset = make('button', { type: 'button', class: 'reset', 'aria-label': `Reset ${title}`, title: 'Back to zero', 'data-testid': `reset-${name}` }, '↺');
  const show = (value) => {
    range.value = value;
    if (document.activeElement !== number) number.value = fixed(value, 2);
    reset.disabled = value === 0;
    range.classList.toggle('set', value !== 0);
    range.classList.toggle('against', value < 0);
    const at = (x) => `calc(9px + (100% - 18px) * ${(x - low) / (high - low)})`; // the thumb is 18 px wide
    range.style.setProperty('--zero', at(0));
    range.style.setProperty('--from', at(Math.min(0, value)));
    range.style.setProperty('--to', at(Math.max(0, value)));
    range.setAttribute('aria-valuetext', poles && value ? `${Math.abs(value)} ${poles[value > 0 ? 0 : 1]}` : `${value}`);
  };
  const set = (value) => {
    if (Number.isNaN(value)) return;
    kept.values[name] = rounded(clamp(value, low, high));
    show(kept.values[name]);
    changed();
  };
  range.addEventListener('input', () => set(range.valueAsNumber));
  number.addEventListener('input', () => set(number.valueAsNumber));
  number.addEventListener('blur', () => show(kept.values[name] ?? 0));
  reset.addEventListener('click', () => { set(0); range.focus(); });
  show(kept.values[name] ?? 0);
  return make('div', { class: 'slider', lang: language, title: description || null },
    make('label', { for: id }, isolated(title)), number, reset, range,
    description && make('span', { class: 'unseen', id: `${id}-help` }, description),
    poles && make('div', { class: 'poles', 'aria-hidden': 'true' }, isolated(poles[1]), isolated(poles[0])));
}

function renderLanguages() {
  const languages = server.status.languages;
  const options = () => languages.map((code) => make('option', { value: code, lang: code }, LANGUAGES[code] ?? code));
  if (!languages.includes(kept.language)) kept.language = languages[0];
  byId('language').replaceChildren(...options());
  byId('language').value = kept.language;
  byId('profile-language').replaceChildren(...options());
  byId('examples').lang = kept.language;
  byId('examples').replaceChildren(...(EXAMPLES[kept.language] ?? EXAMPLES.en).map((text) =>
    make('li', {}, button(text, () => { byId('prompt').value = text; byId('prompt').focus(); }, 'example'))));
}

// ---------------------------------------------------------------- Damage

const MEASURING = 'Measuring …';
const REST = 400; // ms that the sliders rest before anything is measured
let measuring = null;

/** Measures what the mix costs, once the sliders rest; only the latest mix counts. */
async function measureDamage(model) {
  measuring?.abort();
  measuring = new AbortController();
  const { signal } = measuring;
  if (model === 'base') return renderDamage(null);
  for (const id of ['damage', 'damage-words']) byId(id).classList.add('stale');
  if (byId('damage').ariaValueNow === '0') byId('damage-words').textContent = 'Measuring what this costs …';
  await attempt(async () => {
    await rest(REST, signal);
    byId('damage-detail').textContent = MEASURING;
    renderDamage(await send('POST', '/api/damage', { model }, signal));
  }, () => measureDamage(model));
  if (!signal.aborted && byId('damage-detail').textContent === MEASURING) renderDamage(undefined);
}

/** How near the budget, in words. */
function verdict({ kl, high, budget }) {
  if (kl > budget) return 'over the budget, everyday answers change too';
  return high > budget ? 'probably within the budget' : 'everyday answers stay close';
}

/** null: nothing is changed; undefined: it could not be measured. */
function renderDamage(found) {
  const meter = byId('damage'), words = byId('damage-words');
  const { kl, low, high, budget } = found ?? { kl: 0, low: 0, high: 0, budget: server.status?.budget ?? 0.01 };
  const full = Math.max(1.4 * budget, 1.1 * high), share = (value) => `${(100 * clamp(value, 0, full)) / full}%`;
  const [interval, fill, mark] = meter.children;
  const over = kl > budget;
  const digits = over && fixed(kl) === fixed(budget) ? 5 : 3;
  const sentence = found ? `${fixed(kl, digits)} of ${fixed(budget, digits)} nats per token: ${verdict(found)}`
    : found === null ? 'Nothing is changed yet: both answers would be the same.' : 'The damage could not be measured.';
  fill.style.width = share(kl);
  interval.style.left = share(low);
  interval.style.width = share(high - low);
  mark.style.left = share(budget);
  meter.setAttribute('aria-valuemax', full);
  meter.setAttribute('aria-valuenow', kl);
  meter.setAttribute('aria-valuetext', sentence);
  for (const element of [meter, words]) {
    element.classList.remove('stale');
    element.classList.toggle('over', over);
  }
  words.textContent = sentence;
  byId('damage-detail').textContent = found ? `95 % interval ${fixed(low)} to ${fixed(high)}, over ${count(found.prompts, 'prompt')}` : `The mark is the budget: ${fixed(budget)} nats per token`;
  byId('summary-cost').textContent = found ? `${fixed(kl)} of ${fixed(budget)}${over ? ', over' : ''}` : '';
}

// ---------------------------------------------------------------- Dose curve

async function drawDose() {
  const model = expression(), box = byId('dose-drawing');
  if (box.ariaBusy === 'true') return;
  box.ariaBusy = 'true';
  box.replaceChildren(make('p', { class: 'detail' }, 'Measuring at five strengths. This takes some seconds …'));
  const found = await attempt(() => send('POST', '/api/dose', { model }), drawDose);
  box.ariaBusy = 'false';
  if (expression() !== model) return;
  box.replaceChildren(...(found ? doseParts(found) : []));
}

function doseParts({ scales, kl, budget, likelihood }) {
  const brought = likelihood && `Likelihood of good answers, ${likelihood.name}`;
  const charts = [curve('Damage, nats per token', scales, kl, 'accent', budget)];
  if (likelihood) charts.push(curve(`${brought}: change in nats per token`, scales, likelihood.change, 'third'));
  const heads = ['Strength', 'Damage', ...(likelihood ? ['Likelihood'] : [])];
  const rows = scales.map((scale, i) => make('tr', {}, make('th', { scope: 'row' }, `${scale} ×`),
    make('td', {}, fixed(kl[i], 4)), likelihood && make('td', {}, signed(likelihood.change[i], 3))));
  return [...charts, make('details', {}, make('summary', {}, 'The numbers'),
    make('table', { 'data-testid': 'dose-table' }, make('caption', { class: 'unseen' }, 'Dose curve, nats per token'),
      make('thead', {}, make('tr', {}, ...heads.map((head) => make('th', { scope: 'col' }, head)))), make('tbody', {}, ...rows)))];
}

/** A line through points; `limit` is drawn across. */
function curve(title, xs, ys, tone, limit = null) {
  const [wide, tall, left, right, top, bottom] = [330, 150, 44, 8, 14, 24];
  const all = limit === null ? [0, ...ys] : [0, limit, ...ys];
  const low = Math.min(...all), high = Math.max(...all, low + 1e-6) + 0.08 * (Math.max(...all) - low);
  const x = (value) => left + ((value - xs[0]) / (xs.at(-1) - xs[0])) * (wide - left - right);
  const y = (value) => tall - bottom - ((value - low) / (high - low)) * (tall - top - bottom);
  const digits = high - low < 0.1 ? 3 : 2;
  const across = (value, kind) => make('line', { x1: left, x2: wide - right, y1: y(value), y2: y(value), class: kind });
  const words = (text, px, py, kind, anchor) => make('text', { x: px, y: py, class: kind, 'text-anchor': anchor }, text);
  const ticks = [0, 1, 2, 3].map((i) => low + (i / 3) * (Math.max(...all) - low));
  const name = `${title}: ${xs.map((scale, i) => `${fixed(ys[i], 4)} at ${scale}`).join(', ')}`;
  return make('figure', { class: `chart tone-${tone}`, 'data-testid': 'dose-chart' }, make('figcaption', {}, isolated(title)),
    make('svg', { viewBox: `0 0 ${wide} ${tall}`, role: 'img', 'aria-label': name },
      ...ticks.flatMap((value) => [across(value, 'grid'), words(fixed(value, digits), left - 6, y(value) + 4, 'axis', 'end')]),
      ...xs.map((value) => words(`${value}×`, x(value), tall - 6, 'axis', 'middle')),
      limit !== null && across(limit, 'limit'), limit !== null && words('budget', left + 4, y(limit) - 5, 'limit-name', 'start'),
      make('path', { class: 'curve', d: xs.map((value, i) => `${i ? 'L' : 'M'}${x(value)} ${y(ys[i])}`).join('') }),
      ...xs.map((value, i) => make('circle', { class: 'point', cx: x(value), cy: y(ys[i]), r: 3.5 }))));
}

// ---------------------------------------------------------------- Conversation

const HINT = 'Move a slider, or use a profile, and the enhanced answer appears here. With nothing changed it would be the same as the base answer.';
const ENDS = { length: 'Reached the token limit', stopped: 'Stopped' };

/** What a side of the conversation has heard and said before a turn. Comparisons to teach are not part of it. */
function history(turn, kind) {
  const messages = [];
  for (const earlier of turns.slice(0, turns.indexOf(turn))) {
    const [base, enhanced] = earlier.sides;
    const answer = earlier.teaching ? '' : kind === 'base' || enhanced.model === null ? base.text : enhanced.text;
    if (answer) messages.push({ role: 'user', content: earlier.prompt }, { role: 'assistant', content: answer });
  }
  return [...messages, { role: 'user', content: turn.prompt }];
}

/** A side of a turn: what is asked of which model, and what it said. `model` null: nothing is asked. */
function side(kind, label, model) {
  const made = { kind, label, model, messages: [], text: '', ends: null, problem: null };
  made.expression = make('code', { 'data-testid': 'model' });
  made.said = make('div', { class: 'said', dir: 'auto', 'data-testid': 'text' });
  made.foot = make('footer');
  made.below = make('div');
  made.element = make('article', { class: `answer ${kind}`, 'aria-label': `${label} answer`, 'data-testid': `answer-${kind}` },
    make('header', {}, make('h3', {}, label), made.expression), made.said, made.below, made.foot);
  return made;
}

function addTurn(prompt, teaching) {
  const turn = { prompt, teaching, sides: [], bar: make('div', { class: 'bar' }), chosen: null, busy: false, learning: false, pair: make('div', { class: 'pair' }) };
  turn.element = make('li', { class: 'turn', 'data-testid': 'turn' }, make('p', { class: 'asked', dir: 'auto', 'data-testid': 'asked' }, prompt), turn.pair, turn.bar);
  turns.at(-1)?.bar.querySelector('.regenerate')?.remove();
  turns.push(turn);
  byId('turns').append(turn.element);
  byId('welcome').hidden = true;
  return turn;
}

/** The two sides of a turn: base and enhanced, or two that are not named and come in random order. */
async function prepare(turn, signal) {
  if (!turn.teaching) {
    const model = expression();
    turn.seed = kept.seed;
    turn.sides = [side('base', 'Base', 'base'), side('enhanced', 'Enhanced', model === 'base' ? null : model)];
    for (const one of turn.sides) one.messages = history(turn, one.kind);
    return;
  }
  turn.profile ??= kept.profile;
  const messages = history(turn, 'enhanced');
  const found = await send('POST', `${profilePath(turn.profile)}/pair`, { messages }, signal);
  const models = newSeed() % 2 ? [found.first, found.second] : [found.second, found.first];
  turn.seed = found.seed;
  turn.sides = [side('first', 'A', models[0]), side('second', 'B', models[1])];
  for (const one of turn.sides) one.messages = messages;
}

/** Asks both sides of a turn, anew when it was answered before. */
async function answer(turn) {
  running?.abort();
  const controller = new AbortController();
  running = controller;
  if (lastChoice === turn) lastChoice = null;
  Object.assign(turn, { chosen: null, sides: [], busy: true });
  turn.pair.replaceChildren();
  renderComposer();
  renderBar(turn);
  await attempt(async () => {
    await prepare(turn, controller.signal);
    turn.pair.replaceChildren(...turn.sides.map((one) => one.element));
    for (const one of turn.sides) renderSide(turn, one);
    turn.element.scrollIntoView({ block: turns.length === 1 ? 'nearest' : 'start' });
    await Promise.all(turn.sides.map((one) => fill(turn, one, controller.signal)));
    said(controller.signal.aborted ? 'Stopped' : 'The answers are complete');
  }, () => answer(turn));
  turn.busy = false;
  if (running === controller) running = null;
  renderComposer();
  renderSnippet(expression());
  const near = isNearEnd();
  for (const one of turns) renderBar(one);
  if (near) follow();
}

/** Streams one answer into its side. */
async function fill(turn, one, signal) {
  if (one.model === null) return;
  one.element.classList.add('streaming');
  try {
    const body = { model: one.model, messages: one.messages, temperature: kept.temperature, max_tokens: kept.tokens, seed: turn.seed };
    for await (const { text, reason } of chat(body, signal)) {
      const near = isNearEnd();
      one.text += text;
      one.said.append(text);
      one.ends = reason ?? one.ends;
      if (near) follow();
    }
  } catch (error) {
    if (error.name === 'AbortError') one.ends = 'stopped';
    else if (!(error instanceof Refusal)) throw error;
    else one.problem = error.message;
    if (one.problem && error.status === 0) report(error, () => answer(turn));
  } finally {
    one.element.classList.remove('streaming');
    renderSide(turn, one);
  }
}

const isNearEnd = () => { const box = byId('main'); return box.scrollHeight - box.scrollTop - box.clientHeight < 90; };
const follow = () => { byId('main').scrollTop = byId('main').scrollHeight; };

/** What a side says, and what can be done with it. */
function renderSide(turn, one) {
  one.expression.textContent = one.kind === 'enhanced' ? one.model ?? '' : '';
  one.said.textContent = one.model === null ? HINT : one.text;
  one.said.classList.toggle('hint', one.model === null);
  one.said.hidden = false;
  one.below.replaceChildren();
  const whole = one.text && !one.element.classList.contains('streaming');
  refill(one.foot,
    make('span', { class: one.problem ? 'ends problem' : 'ends', 'data-testid': 'ends' }, one.problem ?? ENDS[one.ends] ?? ''),
    whole && one.kind === 'enhanced' && button('Edit the answer', () => edit(turn, one), 'edit', 'link'),
    whole && button('Copy', (event) => copy(one.said, event.target), 'copy', 'link'));
}

/** Below a turn: which answer is better, and asking again. */
function renderBar(turn) {
  const last = turn === turns.at(-1) && running === null;
  const again = last && make('span', { class: 'regenerate push' },
    button('Regenerate', () => { answer(turn); byId('send').focus(); }, 'regenerate', 'quiet'),
    !turn.teaching && button('With a new seed', () => { freshSeed(); answer(turn); byId('send').focus(); }, 'regenerate-anew', 'quiet'));
  refill(turn.bar, ...choiceParts(turn), again);
  turn.bar.classList.toggle('stale', turn.learning);
}

function renderComposer() {
  byId('send').textContent = running ? 'Stop' : 'Send';
  byId('teach').disabled = profile() === null;
  byId('teach').checked = kept.teaching && profile() !== null;
  byId('teach-hint').textContent = profile() === null ? 'needs a profile' : byId('teach').checked ? 'two answers to choose from, apart from the conversation' : '';
  byId('prompt').placeholder = byId('teach').checked ? 'Ask, then choose' : 'Ask both';
  byId('turns').setAttribute('aria-busy', running !== null);
}

/** Sends the prompt, or stops what is being written. */
function submit() {
  if (running) return running.abort();
  const text = byId('prompt').value.trim();
  if (text === '' || server.status === null) return undefined;
  byId('prompt').value = '';
  return answer(addTurn(text, byId('teach').checked));
}

function freshConversation() {
  running?.abort();
  turns = [];
  lastChoice = null;
  byId('turns').replaceChildren();
  byId('welcome').hidden = false;
  byId('prompt').focus();
}

// ---------------------------------------------------------------- Choosing, editing

const OUTCOMES = [['left', 0, 1], ['right', 1, 0], ['none', null, 0.5]]; // name, side, outcome for the first side

function choiceParts(turn) {
  if (turn.chosen !== null) {
    const undo = turn === lastChoice && button('Undo', () => undoChoice(turn), 'undo-choice', 'link');
    return [make('span', { 'data-testid': 'chosen' }, isolated(turn.chosen)), undo];
  }
  if (profile() === null || turn.busy || turn.sides.length < 2 || !turn.sides.every((one) => one.text && !one.problem)) return [];
  if (turn.teaching && turn.profile !== kept.profile) return [];
  const buttons = OUTCOMES.map(([name, which, outcome]) =>
    button(which === null ? 'No preference' : turn.sides[which].label, () => choose(turn, which, outcome), `choose-${name}`));
  return [make('strong', {}, 'Which is better?'), ...buttons];
}

function choose(turn, which, outcome) {
  const [first, second] = turn.sides;
  const words = which === null ? 'No preference' : `You preferred ${turn.sides[which].label}`;
  return learn(turn, { messages: second.messages, first: first.text, second: second.text, outcome }, words);
}

/** Sends a choice to the profile, and shows what it learned. */
async function learn(turn, choice, words) {
  const name = kept.profile;
  if (turn.learning) return;
  turn.learning = true; // it takes a moment
  renderBar(turn);
  const found = await attempt(() => send('POST', `${profilePath(name)}/choices`, choice));
  turn.learning = false;
  if (!found) {
    renderBar(turn);
    return;
  }
  turn.chosen = `${words}. “${name}” has learned from ${count(found.choices, 'choice')}.`;
  lastChoice = turn;
  for (const one of turns) renderBar(one);
  said(turn.chosen);
  learnedAnew(found);
}

async function undoChoice(turn) {
  const found = await attempt(() => send('POST', `${profilePath(kept.profile)}/undo`));
  if (!found) return;
  if (turn) turn.chosen = null;
  lastChoice = null;
  for (const one of turns) renderBar(one);
  notice(`Taken back: ${found.undone}.`, { fine: true });
  learnedAnew(found.profile);
}

/** Lets the person rewrite the enhanced answer; the profile learns from what was changed. */
function edit(turn, one) {
  const field = make('textarea', { class: 'draft', dir: 'auto', 'aria-label': 'Your version of the answer', 'data-testid': 'draft' });
  const back = () => { renderSide(turn, one); one.foot.querySelector('[data-testid=edit]')?.focus(); };
  field.value = one.text;
  field.addEventListener('keydown', (event) => { if (event.key === 'Escape') back(); });
  one.said.hidden = true;
  one.below.replaceChildren(field);
  one.foot.replaceChildren(
    make('span', { class: 'ends' }, profile() ? `“${kept.profile}” learns from your changes` : 'Choose a profile to let it learn from your changes'),
    button('Cancel', back, 'edit-cancel', 'link'), button('Save', () => saveEdit(turn, one, field.value, back), 'edit-save', 'link'));
  field.focus();
}

function saveEdit(turn, one, final, back) {
  const draft = one.text;
  if (final.trim() === '') return;
  if (final !== draft) Object.assign(one, { text: final });
  back();
  if (final !== draft && profile()) learn(turn, { messages: one.messages, first: final, second: draft, outcome: 1 }, 'You edited the answer');
}

// ---------------------------------------------------------------- Profiles

const profilePath = (name) => `/api/profiles/${encodeURIComponent(name)}`;
const SOURCES = { sliders: 'set by hand', choices: 'from your choices' };

/** A profile as the server now has it. */
function learnedAnew(found) {
  server.profiles = [...server.profiles.filter((one) => one.name !== found.name), found].sort((a, b) => a.name.localeCompare(b.name));
  selectProfile(found.name);
}

function selectProfile(name) {
  kept.profile = server.profiles.some((one) => one.name === name) ? name : null;
  const options = server.profiles.map((one) => make('option', { value: one.name }, one.name));
  byId('profile').replaceChildren(make('option', { value: '' }, 'None'), ...options);
  byId('profile').value = kept.profile ?? '';
  refill(byId('learned'), ...(profile() ? profileParts(profile()) : [make('p', { class: 'detail' },
    'A profile learns what you like: from the sliders you keep in it, from the answers you prefer, and from those you rewrite. Make one, or choose one of yours.')]));
  renderComposer();
  for (const turn of turns) renderBar(turn);
  changed({ anew: kept.using });
}

function profileParts(found) {
  const { says, choices, accuracy, keep_text: text, budget, coefficients, sliders } = found;
  const inWords = says.split('; ').filter((part) => !/^\d+ choices?\b/.test(part)).join('; ') || says; // counts follow below
  const foreseen = accuracy ? ` It foresees ${Math.round(100 * accuracy.share)} % of choices it has not seen (${Math.round(100 * accuracy.low)} to ${Math.round(100 * accuracy.high)} %).` : '';
  const use = make('input', { type: 'checkbox', role: 'switch', id: 'use-profile', onchange: (event) => { kept.using = event.target.checked; changed(); } });
  use.checked = kept.using;
  const full = Math.max(1, ...coefficients.map((one) => Math.abs(one.mean) + 1.96 * one.deviation));
  const save = button('Keep the sliders', saveSliders, 'save-sliders');
  return [
    make('p', { class: 'says', dir: 'auto', 'data-testid': 'says' }, inWords),
    make('p', { class: 'detail', 'data-testid': 'counts' }, `Learned from ${count(choices, 'choice')}.${foreseen} Budget ${budget} nats per token. ${text ? 'The text of choices is kept.' : 'No text is kept.'}`),
    make('label', { class: 'switch' }, use, make('span', {}, 'Use it in the enhanced answers')),
    coefficients.length > 0 && make('p', { class: 'detail', id: 'coefficients-title' }, 'Mean and 95 % interval, in standard deviations over everyday answers'),
    make('ul', { class: 'coefficients', 'aria-labelledby': 'coefficients-title' }, ...coefficients.map((one) => coefficient(one, full, one.name in sliders))),
    make('div', { class: 'learned-buttons' }, save, button('Undo the last', () => undoChoice(lastChoice), 'undo'), button('Forget …', forgetProfile, 'forget', 'danger')),
  ];
}

/** One direction's mean and 95 % interval, drawn to either side of zero. */
function coefficient({ name, title, mean, deviation, sure, source }, full, byHand) {
  const reach = 1.96 * deviation, place = (value) => 50 + (50 * clamp(value, -full, full)) / full;
  const span = (kind, from, to) => {
    const drawn = make('span', { class: kind });
    drawn.style.left = `${place(Math.min(from, to))}%`;
    drawn.style.width = `${Math.abs(place(to) - place(from))}%`;
    return drawn;
  };
  const poles = server.directions.find((one) => one.name === name)?.poles;
  const interval = deviation ? `${signed(mean - reach)} to ${signed(mean + reach)}, ` : '';
  const takeBack = byHand && make('button', { type: 'button', class: 'link', 'aria-label': `Take ${title} back`, onclick: () => putSliders({ [name]: 0 }) }, byHand && source !== 'sliders' ? 'take the slider back' : 'take back');
  return make('li', { class: ['coefficient', sure ? '' : 'unsure', mean < 0 ? 'negative' : ''].join(' ').trim(), 'data-testid': `coefficient-${name}` },
    isolated(title), poles ? make('span', {}, `${fixed(Math.abs(mean), 2)} `, isolated(poles[mean < 0 ? 1 : 0])) : make('span', {}, signed(mean)),
    make('div', { class: 'bar-box', 'aria-hidden': 'true' }, make('span', { class: 'zero' }), span('mean', 0, mean), span('spread', mean - reach, mean + reach)),
    make('span', { class: 'detail' }, `${sure ? '' : 'unsure, '}${interval}${SOURCES[source] ?? source} `, takeBack));
}

async function putSliders(values) {
  const found = await attempt(() => send('PUT', `${profilePath(kept.profile)}/sliders`, { values }));
  if (!found) return false;
  lastChoice = null; // an undo now takes the sliders back
  learnedAnew(found);
  return true;
}

/** Moves the sliders into the profile and uses it, so that they do not count twice. */
async function saveSliders() {
  const mine = shownDirections().filter((one) => one.kind !== 'enhancement' && kept.values[one.name]);
  if (mine.length === 0) return notice('All sliders are at zero. Move one first: domains and style can be kept in a profile.');
  const values = Object.fromEntries(mine.map((one) => [one.name, kept.values[one.name]]));
  kept.using = true;
  if (!(await putSliders(values))) return undefined;
  for (const name of Object.keys(values)) delete kept.values[name];
  renderSliders();
  changed();
  return notice(`The sliders are now in “${kept.profile}”, which is used in the enhanced answers.`, { fine: true });
}

function createProfile() {
  byId('profile-name').value = '';
  byId('profile-problem').textContent = '';
  byId('profile-language').value = kept.language;
  return ask('profile-dialog', async () => {
    const body = { name: byId('profile-name').value.trim(), budget: byId('profile-budget').valueAsNumber, keep_text: byId('profile-text').checked, language: byId('profile-language').value };
    try {
      learnedAnew(await send('POST', '/api/profiles', body));
      return true;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      byId('profile-problem').textContent = error.message;
      return false;
    }
  });
}

async function forgetProfile() {
  const { name } = profile(), typed = byId('forget-typed'), sure = byId('forget-sure');
  byId('forget-name').textContent = name;
  typed.value = '';
  sure.disabled = true;
  typed.oninput = () => { sure.disabled = typed.value !== name; };
  if (!(await ask('forget-dialog', () => typed.value === name))) return;
  if (!(await attempt(() => send('DELETE', profilePath(name))))) return;
  server.profiles = server.profiles.filter((one) => one.name !== name);
  lastChoice = null;
  kept.using = false;
  selectProfile(null);
  notice(`“${name}” is forgotten.`, { fine: true });
}

// ---------------------------------------------------------------- Settings, tabs, start

const SETTINGS = { temperature: [0, 2], tokens: [1, Infinity], seed: [0, 2 ** 32 - 1] };

function renderSettings() {
  for (const name in SETTINGS) byId(name).value = kept[name];
}

function readSetting(name) {
  const [low, high] = SETTINGS[name], value = byId(name).valueAsNumber;
  if (!Number.isNaN(value)) kept[name] = clamp(name === 'temperature' ? value : Math.round(value), low, high);
  keep();
  renderSnippet(expression());
}

function freshSeed() {
  kept.seed = newSeed();
  renderSettings();
  keep();
  renderSnippet(expression());
}

function selectTab(chosen) {
  kept.tab = chosen;
  for (const tab of byId('tabs').children) {
    const selected = tab.id === `tab-${chosen}`;
    tab.setAttribute('aria-selected', selected);
    tab.tabIndex = selected ? 0 : -1;
    byId(tab.getAttribute('aria-controls')).hidden = !selected;
  }
  keep();
}

/** Arrow keys, Home and End choose a tab. */
function walkTabs(event) {
  const tabs = [...byId('tabs').children], at = tabs.indexOf(document.activeElement);
  const tab = tabs[{ ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key]];
  if (!tab) return;
  event.preventDefault();
  tab.focus();
  tab.click();
}

/** On a narrow screen steering covers the conversation. */
function openSteering(open) {
  byId('steering').classList.toggle('open', open);
  byId('open-steering').setAttribute('aria-expanded', open);
  byId('open-steering').textContent = open ? 'Done' : 'Steer';
  byId('main').inert = open;
}

function listen() {
  const on = (id, event, action) => byId(id).addEventListener(event, action);
  on('composer', 'submit', (event) => { event.preventDefault(); submit(); });
  on('prompt', 'keydown', (event) => {
    if (event.key === 'Escape') running?.abort();
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!running) submit();
  });
  if (!CSS.supports('field-sizing: content')) on('prompt', 'input', ({ target }) => { target.rows = Math.min(8, target.value.split('\n').length); });
  on('teach', 'change', () => { kept.teaching = byId('teach').checked; keep(); renderComposer(); });
  on('fresh', 'click', freshConversation);
  on('copy-expression', 'click', (event) => copy(byId('expression'), event.target));
  on('copy-snippet', 'click', (event) => copy(byId('snippet'), event.target));
  on('reset-all', 'click', () => { kept.values = {}; renderSliders(); changed(); });
  on('language', 'change', () => { kept.language = byId('language').value; renderLanguages(); renderSliders(); changed(); });
  on('dose', 'click', drawDose);
  on('profile', 'change', () => { lastChoice = null; selectProfile(byId('profile').value); });
  on('new-profile', 'click', createProfile);
  on('new-seed', 'click', freshSeed);
  for (const name of Object.keys(SETTINGS)) {
    on(name, 'input', () => readSetting(name));
    on(name, 'blur', renderSettings);
  }
  for (const tab of byId('tabs').children) tab.addEventListener('click', () => selectTab(tab.id.slice(4)));
  on('tabs', 'keydown', walkTabs);
  const isOpen = () => byId('steering').classList.contains('open');
  on('open-steering', 'click', () => openSteering(!isOpen()));
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !isOpen() || document.querySelector('dialog[open]')) return;
    openSteering(false);
    byId('open-steering').focus();
  });
  matchMedia('(max-width: 62rem)').addEventListener('change', () => openSteering(false));
}

/** Asks the server what it has, and shows it. */
async function start() {
  const found = await attempt(() => Promise.all([get('/api/status'), get('/api/directions'), get('/api/profiles')]), start);
  if (!found) return;
  [server.status, { directions: server.directions }, { profiles: server.profiles }] = found;
  const { model, person, limits } = server.status;
  byId('model-name').textContent = model;
  byId('server-state').textContent = person === 'local' ? 'on this computer' : person;
  SETTINGS.tokens[1] = limits.tokens;
  kept.tokens = Math.min(kept.tokens, limits.tokens);
  byId('tokens').max = limits.tokens;
  renderSettings();
  renderLanguages();
  renderSliders();
  selectProfile(kept.profile);
  changed({ anew: true });
  document.documentElement.dataset.started = 'yes';
}

listen();
selectTab(kept.tab);
renderSettings();
renderComposer();
start();
