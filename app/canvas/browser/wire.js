/**
 * The line to the server: finished gestures leave as numbered batches and stay here until the server has them.
 *
 * When the connection is lost they are kept (over a reload of the page, too) and sent again when it is back; the server
 * applies each number once. When it refuses one, its snapshot takes the place of what is shown here.
 */
import { ref } from "vue";

const RESEND_AFTER = 5000;
const LARGEST = 900_000; // what one message of the socket may carry, with room for its envelope

export function createWire({ key, graph, emit, say, stats, readOnly }) {
  const online = ref(true);
  const storageKey = `agent-factory-canvas:${key}`;
  let editor = null; // null until the server has answered our greeting
  let seq = 0;
  let revision = 0;
  let pending = [];
  let timer = null;

  // ---- what survives a reload --------------------------------------------------------------------------------------
  function keep() {
    try {
      if (editor) sessionStorage.setItem(storageKey, JSON.stringify({ editor, seq, pending: pending.map(({ seq, todo, ops }) => ({ seq, todo, ops })) }));
    } catch {
      // private windows and full stores: the changes are still here, only a reload would lose them
    }
  }
  function kept() {
    try {
      return JSON.parse(sessionStorage.getItem(storageKey)) ?? null;
    } catch {
      return null;
    }
  }

  // ---- sending -------------------------------------------------------------------------------------------------------
  function send(todo, ops = []) {
    const batch = { seq: ++seq, todo, ops, at: 0, first: performance.now() };
    if (JSON.stringify(ops).length > LARGEST) {
      seq--;
      say("That is too much at once. Do it in several smaller steps.", "bad");
      emit("sync", { revision: -1 });
      return;
    }
    pending.push(batch);
    keep();
    post(batch);
  }
  function post(batch) {
    if (!editor || !online.value) return;
    batch.at = performance.now();
    emit("batch", { seq: batch.seq, todo: batch.todo, ops: batch.ops, late: Boolean(batch.late) });
    clearTimeout(timer);
    timer = setTimeout(remind, RESEND_AFTER);
  }
  function remind() {
    if (!pending.length) return;
    for (const batch of pending) post(batch);
  }
  const again = () => graph.apply(pending.flatMap((batch) => (batch.todo === "ops" ? batch.ops : [])));
  function settle(number) {
    const done = pending.find((batch) => batch.seq === number);
    pending = pending.filter((batch) => batch.seq > number);
    if (!pending.length) clearTimeout(timer);
    keep();
    return done;
  }

  // ---- what the server says --------------------------------------------------------------------------------------------
  function greet() {
    const before = kept();
    emit("hello", { previous: before?.editor ?? "", revision });
  }
  /** The answer to our greeting: our name, what became of the page before this one, and the graph if ours is not the newest. */
  function welcome({ editor: name, outcome, seq: arrived, graph: snapshot, revision: now }) {
    const before = kept();
    let old = before && outcome !== "busy" ? before.pending : [];
    if (outcome === "resumed") old = old.filter((batch) => batch.seq > arrived);
    const mine = [...old.map((batch) => ({ ...batch, late: true })), ...pending];
    seq = outcome === "resumed" ? arrived : 0;
    pending = mine.map((batch) => ({ ...batch, seq: ++seq }));
    editor = name;
    if (snapshot) graph.load(snapshot);
    revision = now;
    if (pending.length) again();
    if (old.length) say(old.length === 1 ? "A change from before the connection was lost is sent now." : `${old.length} changes from before the connection was lost are sent now.`);
    keep();
    for (const batch of pending) post(batch);
  }
  /** A batch was applied on the server: ours, or somebody else's. */
  function applied({ ops, revision: now, own, seq: number, faces, broken, said, counts }) {
    const batch = own && number !== null ? settle(number) : null;
    if (batch) stats.rtt.push(performance.now() - batch.first);
    if (now > revision + 1) return emit("sync", { revision: -1 });
    if (now === revision + 1 && !(batch && batch.todo === "ops")) {
      graph.apply(ops);
      if (pending.length) again();
    }
    revision = Math.max(revision, now);
    stats.revision = revision;
    graph.learn(faces, broken);
    for (const sentence of said) say(sentence);
    if (!pending.length && counts.some((count, i) => count !== graph.counts()[i])) emit("sync", { revision: -1 });
  }
  /** A batch was refused (or came twice): what the server has takes the place of what is shown. */
  function refused({ seq: number, message, fix, graph: snapshot }) {
    settle(number);
    reset({ graph: snapshot });
    if (message) say(fix ? `${message} ${fix}` : message, "bad");
  }
  function reset({ graph: snapshot, said }) {
    graph.load(snapshot);
    revision = snapshot.revision;
    if (pending.length) again();
    if (said) say(said);
  }
  /** A batch did not arrive: send again from that number. */
  function resend(expected) {
    if (pending.length && pending[0].seq > expected) {
      seq = expected - 1;
      for (const batch of pending) batch.seq = ++seq;
      keep();
    }
    for (const batch of pending) if (batch.seq >= expected) post(batch);
  }

  // ---- the connection ----------------------------------------------------------------------------------------------------
  let ended = false;
  const down = () => {
    online.value = false;
    document.documentElement.toggleAttribute("data-offline", true); // what the page says of saving is from before
  };
  function up() {
    if (ended) return;
    if (!window.did_handshake) return setTimeout(up, 50);
    if (online.value) return;
    online.value = true;
    document.documentElement.toggleAttribute("data-offline", false);
    emit("sync", { revision });
    for (const batch of pending) post(batch);
  }
  function start(firstRevision) {
    revision = firstRevision;
    const listen = () => {
      if (ended) return;
      if (!window.socket) return setTimeout(listen, 20);
      window.socket.on("disconnect", down);
      window.socket.on("connect", up);
      greet();
    };
    listen();
  }
  function stop() {
    ended = true;
    document.documentElement.toggleAttribute("data-offline", false);
    clearTimeout(timer);
    window.socket?.off("disconnect", down);
    window.socket?.off("connect", up);
  }

  return {
    online, send, start, stop, welcome, applied, refused, reset, resend,
    waiting: () => pending.length,
    editor: () => editor,
    readOnly,
  };
}
