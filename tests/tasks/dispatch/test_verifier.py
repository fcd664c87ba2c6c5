"""The verifier against hand-made schedules, and against a plain judge on random ones."""

import itertools
import random

import numpy as np
import pytest

from gnnlab.errors import ConfigError, DataError
from gnnlab.tasks.dispatch import (
    Cuts,
    JobShopInstance,
    RandomTrace,
    Schedule,
    Shutdowns,
    WindowTrace,
    verify,
)

SWAP = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
SWAPPED = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5], [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]]
SERIAL = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5], [1, 0, 1, 5, 8, 8], [1, 1, 0, 8, 10, 10]]
# Machine 0 is free at 2 for job 1, since job 0 moves on; job 0 then waits on machine 1.
FLOW = JobShopInstance.from_jobs([[(0, 2), (1, 1), (2, 1)], [(2, 5)], [(0, 4)]])
BLOCKED = [
    [0, 0, 0, 0, 2, 2],
    [0, 1, 1, 2, 3, 5],
    [0, 2, 2, 5, 6, 6],
    [1, 0, 2, 0, 5, 5],
    [2, 0, 0, 2, 6, 6],
]


def plan(rows, mode="bws", makespan=None):
    rows = np.array(rows, np.int64).reshape(-1, 6)
    return Schedule(
        "x", mode, int(rows[:, 4].max(initial=0)) if makespan is None else makespan, rows
    )


def codes(instance, schedule, *args, **kwargs):
    return sorted({v.code for v in verify(instance, schedule, *args, **kwargs)})


@pytest.mark.parametrize("mode", ["jssp", "bws"])
def test_a_swap_is_valid_with_buffers_and_with_swaps(mode):
    assert verify(SWAP, plan(SWAPPED, mode)) == []


def test_a_swap_without_swaps_is_a_deadlock():
    (violation,) = verify(SWAP, plan(SWAPPED, "bns"))
    assert violation.code == "SWAP_ORDER"
    assert violation.text.startswith("at 3 jobs 0, 1 wait")


@pytest.mark.parametrize("mode", ["jssp", "bws", "bns"])
def test_a_serial_schedule_is_valid_in_every_mode(mode):
    assert verify(SWAP, plan(SERIAL, mode)) == []


@pytest.mark.parametrize("mode", ["bws", "bns"])
def test_a_job_that_waits_keeps_its_machine(mode):
    assert verify(FLOW, plan(BLOCKED, mode)) == []
    assert codes(FLOW, plan(BLOCKED, "jssp")) == ["DEPART"]


def test_a_chain_of_moves_at_one_instant_needs_no_swap():
    shop = JobShopInstance.from_jobs([[(0, 1), (1, 1)], [(2, 1), (0, 1)], [(3, 1), (2, 1)]])
    rows = [[j, i, shop.machines[j, i], i, i + 1, i + 1] for j in range(3) for i in range(2)]
    assert verify(shop, plan(rows, "bns")) == []


def test_a_rotation_of_three_is_valid_with_swaps_only():
    shop = JobShopInstance.from_jobs([[(j, 1), ((j + 1) % 3, 1)] for j in range(3)])
    rows = [[j, i, (j + i) % 3, i, i + 1, i + 1] for j in range(3) for i in range(2)]
    assert verify(shop, plan(rows, "bws")) == []
    assert codes(shop, plan(rows, "bns")) == ["SWAP_ORDER"]


MUTATIONS = {
    "start one later": ((0, slice(3, 6), [1, 4, 4]), {"PRECEDENCE", "DEPART", "OVERLAP"}),
    "start alone one later": ((3, 3, 4), {"END", "DEPART"}),
    "start after the next one": ((0, slice(3, 6), [3, 6, 6]), {"PRECEDENCE", "DEPART", "OVERLAP"}),
    "wrong machine": ((0, 2, 1), {"MACHINE"}),
    "negative start": ((0, slice(3, 5), [-1, 2]), {"NEGATIVE"}),
    "wrong depart": ((0, 5, 4), {"DEPART", "OVERLAP"}),
    "wrong depart at the end": ((3, 5, 6), {"DEPART"}),
    "wrong end": ((2, 4, 2), {"END"}),
    "no such operation": ((3, 1, 2), {"MISSING", "MACHINE"}),
    "no such job": ((3, 0, 7), {"MISSING", "MACHINE"}),
    "duplicate": ((1, slice(0, 3), [0, 0, 0]), {"MISSING", "DUPLICATE"}),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_rejected_with_its_codes(name):
    (row, column, value), expected = MUTATIONS[name]
    rows = np.array(SWAPPED)
    rows[row, column] = value
    assert set(codes(SWAP, plan(rows, makespan=max(5, rows[:, 4].max())))) == expected


def test_starts_exchanged_on_a_machine_overlap_nothing_but_break_the_jobs():
    # On machine 0: job 1 first, at 0, and job 0 at 2: job 1 then does its second operation first.
    rows = [[0, 0, 0, 2, 5, 5], [0, 1, 1, 5, 7, 7], [1, 0, 1, 0, 3, 3], [1, 1, 0, 0, 2, 2]]
    assert codes(SWAP, plan(rows)) == ["DEPART", "PRECEDENCE"]


def test_missing_operations_and_a_wrong_makespan_are_all_reported():
    found = verify(SWAP, plan(SWAPPED[:2], makespan=9))
    assert [(v.code, v.job, v.op, v.machine) for v in found] == [
        ("MISSING", 1, 0, 1),
        ("MISSING", 1, 1, 0),
        ("MAKESPAN", None, None, None),
    ]
    assert len(verify(SWAP, plan([]))) == 4


def test_an_operation_too_many_is_no_operation():
    (violation,) = verify(SWAP, plan([*SWAPPED, [0, 2, 0, 5, 5, 5]]))
    assert violation.code == "MACHINE"
    assert "there is no such operation" in violation.text


def test_a_shutdown_stretches_or_restarts_work():
    shop = JobShopInstance.from_jobs([[(0, 3)]])
    trace = WindowTrace([[(2, 4)]])
    assert verify(shop, plan([[0, 0, 0, 0, 5, 5]]), trace=trace) == []
    assert verify(shop, plan([[0, 0, 0, 0, 7, 7]]), trace=trace, restart=True) == []
    assert codes(shop, plan([[0, 0, 0, 0, 3, 3]]), trace=trace) == ["END"]
    assert codes(shop, plan([[0, 0, 0, 3, 7, 7]]), trace=trace) == ["DOWN_START"]


def test_a_shutdown_that_begins_at_the_end_changes_nothing():
    shop = JobShopInstance.from_jobs([[(0, 3)]])
    for restart in (False, True):
        rows = plan([[0, 0, 0, 0, 3, 3]])
        assert verify(shop, rows, trace=WindowTrace([[(3, 9)]]), restart=restart) == []


def test_an_operation_of_no_time_cannot_start_on_a_machine_that_is_down():
    shop = JobShopInstance.from_jobs([[(0, 0)]])
    trace = WindowTrace([[(2, 4)]])
    assert codes(shop, plan([[0, 0, 0, 3, 3, 3]]), trace=trace) == ["DOWN_START"]
    assert verify(shop, plan([[0, 0, 0, 4, 4, 4]]), trace=trace) == []


def test_cuts_lengthen_an_operation_once():
    shop = JobShopInstance.from_jobs([[(0, 5)]])
    cuts = Cuts(np.array([[2]]), np.array([[10]]))
    assert verify(shop, plan([[0, 0, 0, 1, 16, 16]]), cuts=cuts) == []
    assert verify(shop, plan([[0, 0, 0, 1, 18, 18]]), cuts=cuts, restart=True) == []
    assert verify(shop, plan([[0, 0, 0, 1, 16, 16]]), trace=cuts) == []
    assert codes(shop, plan([[0, 0, 0, 1, 6, 6]]), cuts=cuts) == ["END"]


def test_leaving_a_machine_that_is_down_can_be_forbidden():
    trace = WindowTrace([[(3, 6)], []])
    rows = plan([[0, 0, 0, 0, 3, 4], [0, 1, 1, 4, 6, 6]])
    shop = JobShopInstance.from_jobs([[(0, 3), (1, 2)]])
    assert verify(shop, rows, trace=trace) == []
    assert codes(shop, rows, trace=trace, unload_when_down=False) == ["DEPART"]
    # The end of a job is no move, and with buffers nothing is: neither is looked at.
    trace = WindowTrace([[], [(6, 9)]])
    assert verify(shop, rows, trace=trace, unload_when_down=False) == []


def test_operations_in_a_row_on_one_machine_are_one_stay():
    shop = JobShopInstance.from_jobs([[(0, 3), (0, 2)], [(0, 0)]])
    rows = [[0, 0, 0, 0, 3, 3], [0, 1, 0, 3, 5, 5], [1, 0, 0, 3, 3, 3]]
    assert codes(shop, plan(rows, "bws")) == ["OVERLAP"]
    assert codes(shop, plan(rows, "bns")) == ["OVERLAP"]
    assert verify(shop, plan(rows, "jssp")) == []
    rows[2][3:] = [5, 5, 5]
    assert verify(shop, plan(rows, "bns")) == []


def test_an_empty_stay_may_touch_others_but_not_lie_inside():
    shop = JobShopInstance.from_jobs([[(0, 3)], [(0, 2)], [(0, 0)]])
    rows = [[0, 0, 0, 0, 3, 3], [1, 0, 0, 3, 5, 5], [2, 0, 0, 3, 3, 3]]
    assert verify(shop, plan(rows, "bns")) == []
    rows[2][3:] = [4, 4, 4]
    assert codes(shop, plan(rows, "bns")) == ["OVERLAP"]


def test_operations_of_no_time_may_make_a_swap_an_order_of_moves():
    # At 2 job 0 passes machine 2, which is free, and so lets job 1 in: no swap.
    shop = JobShopInstance.from_jobs([[(0, 2), (2, 0), (1, 1)], [(1, 2), (0, 1)]])
    rows = [[0, 0, 0, 0, 2, 2], [0, 1, 2, 2, 2, 2], [0, 2, 1, 2, 3, 3]]
    rows += [[1, 0, 1, 0, 2, 2], [1, 1, 0, 2, 3, 3]]
    assert verify(shop, plan(rows, "bns")) == []


def test_wrong_options_are_named():
    cuts = Cuts(np.full((2, 2), -1), np.zeros((2, 2), np.int64))
    with pytest.raises(ConfigError, match='unknown mode "bw"'):
        verify(SWAP, plan(SWAPPED), "bw")
    with pytest.raises(ConfigError, match="not both"):
        verify(SWAP, plan(SWAPPED), trace=WindowTrace([[(1, 2)]]), cuts=cuts)
    with pytest.raises(DataError, match="cuts are"):
        verify(SWAP, plan(SWAPPED), cuts=Cuts(cuts.after[:1], cuts.duration[:1]))


def test_random_traces_are_read_as_far_as_needed():
    trace = RandomTrace(3, Shutdowns(prob=0.05))
    shop = JobShopInstance.from_jobs([[(0, 400)]])
    start = next(t for t in range(999) if not down(t, trace.until(1, 999).windows[0]))
    end = finish(start, 400, trace.until(1, 100_000).windows[0], False)
    assert verify(shop, plan([[0, 0, 0, start, end, end]]), trace=trace) == []


# The plain judge: section by section as the rules are written, every pair and every instant.


def down(t, windows):
    return any(a <= t < b for a, b in windows)


def finish(start, work, windows, restart):
    """Walks along time unit by unit."""
    done, t = 0, start
    while done < work:
        if down(t, windows):
            done = 0 if restart else done
        else:
            done += 1
        t += 1
    return t


def judge(jobs, schedule, mode, windows, cuts, restart, unload):
    bad = set()
    rows = {}
    for j, i, k, *times in schedule.ops.tolist():
        if j not in range(len(jobs)) or i not in range(len(jobs[j])):
            bad.add("MACHINE")
        elif (j, i) in rows:
            bad.add("DUPLICATE")
        else:
            rows[j, i] = times
            if k != jobs[j][i][0]:
                bad.add("MACHINE")
    stays = []
    for j, job in enumerate(jobs):
        for i, (k, p) in enumerate(job):
            if (j, i) not in rows:
                bad.add("MISSING")
                continue
            s, c, d = rows[j, i]
            if s < 0:
                bad.add("NEGATIVE")
            if down(s, windows[k]):
                bad.add("DOWN_START")
            if cuts is not None and cuts.after[j, i] >= 0:
                right = s + p + cuts.duration[j, i] + (cuts.after[j, i] if restart else 0)
            else:
                right = finish(s, p, windows[k], restart)
            if c != right:
                bad.add("END")
            after = rows.get((j, i + 1))
            if after and after[0] < c:
                bad.add("PRECEDENCE")
            if mode == "jssp" or i + 1 == len(job):
                if d != c:
                    bad.add("DEPART")
            elif after and (
                d != after[0] or (not unload and job[i + 1][0] != k and down(d, windows[k]))
            ):
                bad.add("DEPART")
            if mode != "jssp" and i and job[i - 1][0] == k and (j, i - 1) in rows:
                stays[-1][2] = d
            else:
                stays.append([k, s, d, j])
    for one, two in itertools.permutations(stays, 2):
        (k, s, d, _), (l, t, e, _) = one, two
        if k == l and ((s < t < d) or (s == t and s < d and t < e)):
            bad.add("OVERLAP")
    if schedule.makespan != max([c for _, c, _ in rows.values()], default=0):
        bad.add("MAKESPAN")
    if mode == "bns" and not bad and not all(orderable(stays, t) for t in {s[1] for s in stays}):
        bad.add("SWAP_ORDER")
    return bad


def orderable(stays, t):
    """Tries every order of the moves at t."""
    last = {s[3]: n for n, s in enumerate(stays)}
    at = {}
    for n, (k, s, d, j) in enumerate(stays):
        if s < t and (d > t or (d == t and n != last[j])):
            at[k] = j
    moves = {}
    for n, (k, s, d, j) in enumerate(stays):
        if s == t:
            moves.setdefault(j, []).append((k, d == t and n == last[j]))

    def possible(at, moves):
        if not any(moves.values()):
            return True
        for j, ahead in moves.items():
            if ahead and ahead[0][0] not in at:
                k, ends = ahead[0]
                then = {m: h for m, h in at.items() if h != j}
                if not ends:
                    then[k] = j
                if possible(then, {**moves, j: ahead[1:]}):
                    return True
        return False

    return possible(at, moves)


def draw(rng):
    """Returns a random shop, the world around it, and a schedule of it (None: a deadlock)."""
    m = rng.randint(1, 3)
    most = rng.choice([1, 3])
    jobs = [
        [(rng.randrange(m), rng.randint(0, most)) for _ in range(rng.randint(1, 4))]
        for _ in range(rng.randint(1, 4))
    ]
    mode = rng.choice(["jssp", "bws", "bns"])
    restart, unload = rng.random() < 0.3, rng.random() < 0.7
    windows, cuts = [[] for _ in range(m)], None
    world = rng.random()
    if world < 0.5:
        for row in windows:
            at = 0
            for _ in range(rng.randint(0, 3)):
                at += rng.randint(0, 4)
                row.append((at, at := at + rng.randint(1, 3)))
    elif world < 0.7:
        cuts = Cuts.draw(
            JobShopInstance.from_jobs(jobs), 0.5, rng.randrange(99), Shutdowns(low=1, high=3)
        )
    world = (mode, windows, cuts, restart, unload)
    return jobs, world, schedule_at_random(rng, jobs, *world)


def schedule_at_random(rng, jobs, mode, windows, cuts, restart, unload):
    """Draws an order of stays on each machine and takes the earliest times that it allows."""
    tokens = [j for j, job in enumerate(jobs) for _ in job]
    rng.shuffle(tokens)
    order, seen = {}, [0] * len(jobs)
    for j in tokens:
        order.setdefault(jobs[j][seen[j]][0], []).append((j, seen[j]))
        seen[j] += 1
    start = {(j, i): rng.choice([0, 0, 1]) for j, job in enumerate(jobs) for i in range(len(job))}

    def end(j, i):
        k, p = jobs[j][i]
        if cuts is not None and cuts.after[j, i] >= 0:
            return start[j, i] + p + int(cuts.duration[j, i]) + restart * int(cuts.after[j, i])
        return finish(start[j, i], p, windows[k], restart)

    def release(j, i):
        return end(j, i) if mode == "jssp" or (j, i + 1) not in start else start[j, i + 1]

    for _ in range(60):
        before = dict(start)
        for j, i in start:
            if i:
                start[j, i] = max(start[j, i], end(j, i - 1))
            k = jobs[j][i][0]
            needed = [k]
            if i and not unload and mode != "jssp":
                needed.append(jobs[j][i - 1][0])
            while any(down(start[j, i], windows[machine]) for machine in needed):
                start[j, i] += 1
        for row in order.values():
            for one, two in itertools.pairwise(row):
                start[two] = max(start[two], release(*one))
        if start == before:
            return [
                [j, i, jobs[j][i][0], s, end(j, i), release(j, i)] for (j, i), s in start.items()
            ]
    return None


def broken(rng, rows, m):
    rows = [list(row) for row in rows]
    what = rng.randrange(9)
    row = rng.choice(rows)
    if what == 0:
        row[rng.randint(3, 5)] += rng.choice([-1, 1])
    elif what == 1:
        step = rng.choice([-1, 1])
        row[3:] = [v + step for v in row[3:]]
    elif what == 2:
        other = rng.choice(rows)
        row[3], other[3] = other[3], row[3]
    elif what == 3:
        other = rng.choice(rows)
        row[3:], other[3:] = other[3:], row[3:]
    elif what == 4:
        rows.remove(row)
    elif what == 5:
        rows.append([*row[:3], *(v + rng.randint(0, 1) for v in row[3:])])
    elif what == 6:
        row[2] = rng.randint(0, m)
    elif what == 7:
        row[rng.randint(0, 1)] += rng.choice([-1, 1])
    else:
        row[3:] = [row[3] - 3, row[4] - 3, row[5]]
    return rows


def test_the_verifier_agrees_with_a_plain_judge_on_random_schedules():
    rng = random.Random(0)
    tally = {}
    for _ in range(4000):
        jobs, world, rows = draw(rng)
        if rows is None:
            continue
        mode, windows, cuts, restart, unload = world
        instance = JobShopInstance.from_jobs(jobs, len(windows))
        for mutate in (False, True):
            used = broken(rng, rows, len(windows)) if mutate else rows
            schedule = plan(used, mode, rng.choice([None, None, 7]) if mutate else None)
            expected = judge(jobs, schedule, mode, windows, cuts, restart, unload)
            trace = WindowTrace(windows) if cuts is None else None
            found = verify(
                instance, schedule, None, trace, cuts=cuts, restart=restart, unload_when_down=unload
            )
            got = {v.code for v in found}
            if expected - {"SWAP_ORDER"}:
                got.discard("SWAP_ORDER")
            assert got == expected, (jobs, world, used, schedule.makespan)
            for code in expected or {mode}:
                tally[code] = tally.get(code, 0) + 1
    assert set(tally) == {
        *("MISSING", "DUPLICATE", "MACHINE", "NEGATIVE", "DOWN_START", "END", "PRECEDENCE"),
        *("DEPART", "OVERLAP", "SWAP_ORDER", "MAKESPAN", "jssp", "bws", "bns"),
    }, tally
    assert min(tally.values()) > 20, tally
