"""Explicit-state model of the engine protocol (docs/architecture.md): breadth-first over every interleaving.

Modelled: one workflow, accepted -create-> created -submit-> submitted, on an upstream without idempotency. A call takes
effect and answers, takes effect and loses the answer, fails definitely (backed off, or attempts used up), is lost, or
takes effect late. Two workers; each may crash or stall at every boundary (a stall: the others go on). The sweep takes
away (holder dead or stopped: crashes + 1, the third one fails the row with its doubt kept; or wake_at passed) and
dispatches. Messages may be lost, doubled, late or forged: a take may be tried at any moment. `find` reads the upstream,
may fail, may be given up in doubt. Both vehicles: stepwise (release after each step) and express (outcome and next
intent in one statement). One cancel by the API at any moment: it reads the row, then writes guarded (two events).

Abstract time: `due` and `wake` are 0 (to come) or 1 (passed), None in finished rows; `settled` belongs to the row's
last intent; `old` = 2 s have passed since the worker's intent. A tick may come at any moment (so leases may end early).
The fence is a flag per reader, "still equal to the row's": sound because it only ever grows.

Assumed: (1) one UPDATE is atomic and judges the row as committed; (2) rule two_seconds: testing the age of the intent and
sending are one event; (3) a sent call has its effect before the settle time or never, and settle > 2 s + call limits;
(4) `find` sees every effect that has happened; (5) a definite failure means no effect.
Not modelled: undo and rollback, replay, several rows, priorities, a take carrying the first intent (a special case of
take, then intent), corruption of Postgres.

Invariants: I1 each effect at most once. I2 unfinished <=> wake_at and due_at set, and a finished state reachable from
every state without any further fault. I3 after an accepted cancel no call of an intent made later is sent, after a 200
none at all. I4 only the lease holder's writes change the row. I5 finished rows agree with the upstream, for good
(failed with `in_doubt` says "unknown"). I6 nothing is sent before due_at.
"""

import sys
import time
from collections import deque, namedtuple

Row = namedtuple("Row", "state held doubt settled asked due wake crashes")
Worker = namedtuple("Worker", "phase step plan fence lost old trust post")  # lost, post: ghosts
Up = namedtuple("Up", "create submit late_create late_submit")
Api = namedtuple("Api", "phase state doubt fence")
State = namedtuple("State", "row workers up message api bad")

IDLE = Worker("idle", "", "", 0, 0, 0, 0, 0)
NEXT_STEP = {"accepted": "create", "created": "submit"}
BEFORE = {"create": "accepted", "submit": "created"}
AFTER = {"create": "created", "submit": "submitted"}
MADE = {"accepted": "0", "created": "1"}  # what a failed or cancelled row says was created
POISON = 3
START = State(Row("accepted", "free", 0, 0, 0, 1, 0, 0), (IDLE, IDLE), Up(0, 0, 0, 0), "create", Api("", "", 0, 0), "")

# Switches. Rules are on in the protocol; a mutation is a deliberate mistake.
RULES = {
    "two_seconds",  # a call not sent within 2 s of its intent is not sent
    "timer_before_intent",  # ... reckoned from before the intent's UPDATE was issued, not from its answer
    "cancel_guards_doubt",  # who moves or asks without the lease also guards on in_doubt as read
    "unknown_keeps_doubt",  # the outcome Unknown clears neither intent nor in_doubt
    "settle_at_find_start",  # a find counts if it was started after the settle time, not if it ended after it
    "crashed_keeps_doubt",  # the third death fails the row but leaves in_doubt as it is
}
MUTATIONS = {"no_fence_in_guard", "no_intent", "take_ignores_due", "skip_find", "reaper_keeps_fence", "intent_ignores_asked"}


def finish(row, state, doubt=0):
    return row._replace(state=state, held="free", doubt=doubt, settled=0, due=None, wake=None)


def later(row, doubt):
    """Release with a future: back-off, not settled yet, in doubt."""
    return row._replace(held="free", doubt=doubt, settled=row.settled and doubt, due=0, wake=0)


def bump(s, keep=None, fence=True):
    """The right to write changes hands: every copy of the fence but the new holder's is stale."""
    new = [w if i == keep or w.phase == "idle" else w._replace(lost=1, fence=0 if fence else w.fence)
           for i, w in enumerate(s.workers)]
    return s._replace(workers=tuple(new), api=s.api._replace(fence=0) if fence else s.api)


def put(s, i, worker, row=None, **more):
    workers = (worker, s.workers[1]) if i == 0 else (s.workers[0], worker)
    return s._replace(workers=workers, row=row or s.row, **more)


def effect(up, step):
    return up._replace(**{step: min(2, getattr(up, step) + 1)})


def late(up, step, by):
    return up._replace(**{"late_" + step: getattr(up, "late_" + step) + by})


def worker_events(s, i, on):
    """(label, fault?, next state) for everything worker i, and the upstream for its call, may do now."""
    row, w = s.row, s.workers[i]
    me = "AB"[i]
    after_intent = "armed" if "timer_before_intent" in on else "intent stored"

    def write(label, new_row, worker=IDLE, message=None):
        """A guarded UPDATE (state, fence); zero rows change nothing and the worker lets go."""
        if row.state != BEFORE[w.step] or not (w.fence or "no_fence_in_guard" in on):
            return f"{me}: {label}: zero rows", False, put(s, i, IDLE)
        t = put(s, i, worker, new_row, message=s.message if message is None else message)
        return f"{me}: {label}", False, t._replace(bad="I4") if w.lost else t

    def done(label):
        state = AFTER[w.step]
        if state == "submitted":
            yield write(label + ", submitted", finish(row, state))
            return
        yield write(label + ", created, release, chain goes on",
                    row._replace(state=state, held="free", doubt=0, settled=0, due=1, wake=0), message="submit")
        if (not row.asked or "intent_ignores_asked" in on) and "no_intent" not in on:
            armed = w._replace(phase=after_intent, step="submit", plan="", old=0, trust=0, post=s.api.phase in ("200", "202"))
            yield write(label + ", created, and intent submit in one statement (express)",
                        row._replace(state=state, doubt=1, settled=0, wake=0), armed)

    if w.phase != "idle":
        up = late(s.up, w.step, 1) if w.phase == "flying" else s.up
        held = "dead" if row.held == "live" and not w.lost else row.held
        yield f"{me} crashes ({w.phase})", True, put(s, i, IDLE, row._replace(held=held), up=up)

    if w.phase == "idle":
        step = NEXT_STEP.get(row.state)
        if step and row.held == "free" and (row.due or "take_ignores_due" in on):
            find = row.doubt and "skip_find" not in on
            plan = "find" if find else "cancel" if row.asked and "intent_ignores_asked" not in on else "do"
            t = put(bump(s, i), i, Worker("took", step, plan, 1, 0, 0, 0, 0), row._replace(held="live", wake=0))
            if s.message == step:
                yield f"{me} takes ({step})", False, t._replace(message="")
            yield f"{me} takes ({step}; doubled, late or forged message, or run by the sweep)", True, t
    elif w.phase == "took" and w.plan == "do":
        armed = w._replace(phase=after_intent, plan="", trust=0, post=s.api.phase in ("200", "202"))
        if "no_intent" in on:
            yield f"{me}: goes to call without an intent", False, put(s, i, armed)
        elif row.asked and w.fence and "intent_ignores_asked" not in on:
            yield f"{me}: intent: zero rows, cancel is asked", False, put(s, i, w._replace(plan="cancel"))
        else:
            yield write(f"intent {w.step}", row._replace(doubt=1, settled=0, wake=0), armed)
    elif w.phase == "took" and w.plan == "find":
        yield f"{me}: find starts", False, put(s, i, w._replace(phase="finding", plan="", trust=row.settled))
    elif w.phase == "took" and w.plan == "cancel":
        yield write("moves to cancelled", finish(row, "cancelled" + MADE[BEFORE[w.step]]))
    elif w.phase == "intent stored":
        yield f"{me} hears that its intent is stored, starts its timer", False, put(s, i, w._replace(phase="armed"))
    elif w.phase == "armed":
        if not w.old:
            yield f"{me} stalls, its intent is 2 s old", True, put(s, i, w._replace(old=1))
        if w.old and "two_seconds" in on:
            yield write("too late to send: not called", later(row, 0))
        else:
            bad = "I3" if s.api.phase == "200" or w.post else "I6" if w.fence and row.due == 0 else s.bad
            yield f"{me} sends {w.step}", False, put(s, i, w._replace(phase="flying", old=0), bad=bad)
    elif w.phase == "flying":
        got = w._replace(phase="got")
        yield f"{w.step} of {me} takes effect, answers", False, put(s, i, got._replace(plan="ok"), up=effect(s.up, w.step))
        yield f"{w.step} of {me} takes effect, answer lost", True, put(s, i, got._replace(plan="unknown"), up=effect(s.up, w.step))
        yield f"{w.step} of {me} fails definitely", True, put(s, i, got._replace(plan="no"))
        yield f"{w.step} of {me} is lost before the effect", True, put(s, i, got._replace(plan="unknown"))
        yield f"{w.step} of {me} is under way, answer lost", True, put(s, i, got._replace(plan="unknown"), up=late(s.up, w.step, 1))
    elif w.phase == "got" and w.plan == "ok":
        yield from done("commits Ok")
    elif w.phase == "got" and w.plan == "no":
        yield write("commits Retry, backs off", later(row, 0))
        yield write("commits Rejected or attempts used up, failed", finish(row, "failed" + MADE[BEFORE[w.step]]))
    elif w.phase == "got" and w.plan == "unknown":
        yield write("commits Unknown", later(row, 1 if "unknown_keeps_doubt" in on else 0))
    elif w.phase == "finding":
        found = w._replace(phase="found")
        seen = "seen" if getattr(s.up, w.step) else "none"
        yield f"{me}: find reads: {seen}", False, put(s, i, found._replace(plan=seen))
        yield f"{me}: find fails", True, put(s, i, found._replace(plan="failed"))
    elif w.plan == "seen":
        yield from done("adopts")
    elif w.plan == "none" and (w.trust if "settle_at_find_start" in on else row.settled):
        again = w._replace(phase="took", plan="do", trust=0)
        yield write("nothing there and settled: clears the doubt, do again", row._replace(doubt=0, settled=0), again)
        yield write("nothing there, settled, attempts used up: failed", finish(row, "failed" + MADE[BEFORE[w.step]]))
    else:  # not settled yet, or find itself failed
        yield write("not settled yet: later", later(row, 1))
        if w.plan == "failed":
            yield write("deadline: failed, outcome unknown", finish(row, "failed" + MADE[BEFORE[w.step]], doubt=1))


def sweep_and_time_events(s, on):
    row, up = s.row, s.up
    for step in ("create", "submit"):
        if getattr(up, "late_" + step):
            yield f"late {step} takes effect", False, s._replace(up=effect(late(up, step, -1), step))
            yield f"late {step} vanishes", False, s._replace(up=late(up, step, -1))
    if s.message:
        yield "message lost", True, s._replace(message="")
    if row.state not in NEXT_STEP:
        return
    if row.due == 0:
        yield "due_at passes", False, s._replace(row=row._replace(due=1))
    if row.wake == 0:
        yield "wake_at passes", False, s._replace(row=row._replace(wake=1))
    under_way = up.late_create or up.late_submit or any(
        w.phase == "flying" or (w.phase == "armed" and not w.old) for w in s.workers)
    if row.doubt and not row.settled and not under_way:
        yield "settle time passes", False, s._replace(row=row._replace(settled=1))
    if row.held != "free" and (row.held == "dead" or row.wake):
        t = bump(s, fence="reaper_keeps_fence" not in on)
        away = row._replace(held="free", wake=1)
        doubt = row.doubt if "crashed_keeps_doubt" in on else 0
        if row.held == "live":
            yield "sweep takes away (wake_at passed)", False, t._replace(row=away)
        if row.crashes + 1 < POISON:
            t = t._replace(row=away._replace(crashes=row.crashes + 1))
        else:
            t = t._replace(row=finish(row, "failed" + MADE[row.state], doubt)._replace(crashes=POISON))
        yield "sweep takes away (holder dead or stopped)", row.held == "live", t
    if row.held == "free" and row.wake:
        yield "sweep dispatches", False, s._replace(row=row._replace(wake=0), message=NEXT_STEP[row.state])


def api_events(s, on):
    """Cancel (travel-claims 2.6): 200 when nothing is in flight or in doubt, 202 while create is, 409 while submit is."""
    row, api = s.row, s.api
    if api.phase == "":
        if row.state in NEXT_STEP:
            yield f"API reads {row.state}, in doubt: {row.doubt}", True, s._replace(api=Api("read", row.state, row.doubt, 1))
        return
    if api.phase != "read":
        return
    if api.doubt and api.state == "created":
        yield "API answers 409", True, s._replace(api=Api("409", "", 0, 0))
    elif row.state != api.state or not api.fence or ("cancel_guards_doubt" in on and row.doubt != api.doubt):
        yield "API: zero rows, reads again", True, s._replace(api=Api("", "", 0, 0))
    elif api.doubt:
        yield "API sets asked, answers 202", True, s._replace(row=row._replace(asked=1), api=Api("202", "", 0, 0))
    else:
        t = bump(s)._replace(row=finish(row, "cancelled" + MADE[row.state], row.doubt), api=Api("200", "", 0, 0))
        yield "API moves to cancelled, answers 200", True, t


def broken(s):
    """The name of the invariant that this state breaks, or an empty string."""
    row, up = s.row, s.up
    if up.create > 1 or up.submit > 1:
        return "I1"
    if s.bad:
        return s.bad
    finished = row.state not in NEXT_STEP
    if (row.wake is None) != finished or (row.due is None) != finished:
        return "I2"
    if finished:
        says = (1, 1) if row.state == "submitted" else (int(row.state[-1]), 0)
        maybe = (1, 0) if row.state == "failed0" else (1, 1)
        agrees = (up.create, up.submit) == says or (row.doubt and row.state[:6] == "failed" and (up.create, up.submit) == maybe)
        return "" if agrees else "I5"
    return ""


def explore(on, want=None, symmetric=True):
    """Breadth-first. Returns (states, edges, broken invariant or "", trace to it); `want` looks for one invariant only."""
    number, states, parent, back, edges = {START: 0}, [START], [None], [[]], 0
    queue = deque([0])
    while queue:
        n = queue.popleft()
        s = states[n]
        events = [*worker_events(s, 0, on), *worker_events(s, 1, on), *sweep_and_time_events(s, on), *api_events(s, on)]
        for label, fault, t in events:
            edges += 1
            if want and t.bad != want:
                t = t._replace(bad="")
            if symmetric and t.workers[0] > t.workers[1]:
                t = t._replace(workers=t.workers[::-1])
            m = number.get(t)
            if m is None:
                m = number[t] = len(states)
                states.append(t)
                parent.append((n, label))
                back.append([])
                bad = broken(t)
                if bad and want in (None, bad):
                    return len(states), edges, bad, trace(parent, m)
                queue.append(m)
            if not fault:
                back[m].append(n)
    if want:
        return len(states), edges, "", []
    live = {n for n, s in enumerate(states) if s.row.state not in NEXT_STEP}
    queue = deque(live)
    while queue:
        fresh = [p for p in back[queue.popleft()] if p not in live]
        live.update(fresh)
        queue.extend(fresh)
    stuck = next((n for n in range(len(states)) if n not in live), None)
    return (len(states), edges, "", []) if stuck is None else (len(states), edges, "I2", trace(parent, stuck))


def trace(parent, n):
    labels = []
    while parent[n]:
        n, label = parent[n]
        labels.append(label)
    return labels[::-1]


def main():
    begun, failures = time.monotonic(), 0
    cases = [("protocol, all rules", RULES, None)]
    cases += [(f"without the rule {rule}", RULES - {rule}, "any") for rule in sorted(RULES)]
    cases += [(f"mutation {mutation}", RULES | {mutation}, "any") for mutation in sorted(MUTATIONS)]
    extra = {"two_seconds": "I1", "cancel_guards_doubt": "I5", "no_intent": "I1", "no_fence_in_guard": "I1"}
    cases += [(f"{name}, looking for {want}", RULES ^ {name}, want) for name, want in extra.items()]
    for name, on, want in cases:
        states, edges, bad, path = explore(on, None if want == "any" else want, symmetric=want is None)
        failures += bool(bad) != (want is not None)
        verdict = f"{bad} BROKEN after {len(path)} events" if bad else "I1-I6 hold"
        print(f"{name}: {verdict} ({states} states, {edges} edges, {time.monotonic() - begun:.1f} s)", flush=True)
        for label in path:
            print("    " + label)
    print("as expected" if not failures else f"{failures} NOT as expected")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
