"""The tables of the page beside this file, of its measurements; ``python results/pages.py`` puts them there."""

from pathlib import Path

import pandas as pd
from markdown_table import table  # pages.py finds it

HERE = Path(__file__).parent

# Assumed, not measured: a node has so many collectors, and the network of the learner's node so many bytes a second.
COLLECTORS_PER_NODE = 16
NETWORK = 10e9 / 8
# Versions of the weights, of the paper's sizes, that a learner gives away in a second.
VERSIONS_PER_SECOND = 1.0
REQUESTS_AHEAD = 2  # with each collector, as remote_collectors.py has it
NODES = (1, 10, 100, 1000)


def chaos() -> str:
    """Trials by what was killed."""
    frame = pd.read_csv(HERE / "chaos.csv")
    rows = []
    for (work, killed), own in frame.groupby(["work", "killed"]):
        same = "" if own["same_records"].isna().all() else f"{int(own['same_records'].sum())} of {len(own)}"
        lost = "" if own["lost_rollouts"].isna().all() else f"{int(own['lost_rollouts'].sum())}"
        cells = [str(work), str(killed), str(len(own)), str(int(own["kills"].sum())), str(int(own["complete"].sum()))]
        rows.append([*cells, same, str(int(own["doubled"].sum())), lost])
    header = ["work", "killed", "trials", "kills", "went on", "same records", "rollouts counted twice"]
    return table([*header, "unfinished rollouts lost"], rows)


def evaluation() -> str:
    """Seconds of an evaluation of MTBabyAI, the best of several, and the ratio to the local one."""
    frame = pd.read_csv(HERE / "evaluation.csv")
    best = frame.groupby("side", sort=False)[["seconds", "processor_seconds"]].min()
    rows = []
    for side, own in best.iterrows():
        ratios = own / best.loc["local"]
        cells = [f"{own['seconds']:.1f}", f"{ratios['seconds']:.2f}"]
        if own.notna().all():
            cells += [f"{own['processor_seconds']:.1f}", f"{ratios['processor_seconds']:.2f}"]
        rows.append([str(side), f"{(frame['side'] == side).sum()}", *cells, *[""] * (4 - len(cells))])
    return table(["where", "times", "seconds", "ratio", "processor seconds", "ratio"], rows)


def _collection() -> pd.DataFrame:
    """The best of each measurement: other work shares the cores."""
    frame = pd.read_csv(HERE / "collection.csv")
    grouped = frame.groupby("what", sort=False)
    largest = grouped.max(numeric_only=True)
    for name in ("seconds", "intake_ns_per_byte", "seconds_per_request"):
        largest[name] = grouped[name].min()
    for name in ("bytes_per_step", "requests_per_step"):
        largest[name] = grouped[name].median()
    return largest


def collection() -> str:
    """What one collector sends, by suite."""
    found = _collection()
    rows = []
    for what, own in found[found["bytes_per_step"].notna()].iterrows():
        rates = [f"{own[name]:,.0f}" for name in ("steps_per_second", "steps_per_second_here", "bytes_per_step")]
        requests, intake = f"{1000 * own['requests_per_step']:.2f}", f"{own['intake_ns_per_byte']:.2f}"
        rows.append([str(what), *rates, requests, intake])
    header = ["suite", "steps a second", "without Ray", "bytes a step", "requests per 1,000 steps"]
    return table([*header, "intake, ns a byte"], rows)


def model() -> str:
    """Shares of what the learner's process and network can do that so many nodes need, and the first to be full."""
    found = _collection()
    store, version = found.loc["object store"], found.loc["weights, paper", "bytes"]
    rows = []
    for what, own in found[found["bytes_per_step"].notna()].iterrows():
        rate, sent = own["steps_per_second"], own["steps_per_second"] * own["bytes_per_step"]
        per_byte = own["intake_ns_per_byte"] * 1e-9 + 1 / store["get_bytes_per_second"]
        shares = {  # for each collector
            "intake": sent * per_byte + rate * own["requests_per_step"] * store["seconds_per_request"],
            "network": sent / NETWORK,
            "broadcast": version * VERSIONS_PER_SECOND / NETWORK / COLLECTORS_PER_NODE,
        }
        waiting = REQUESTS_AHEAD * own["bytes_per_step"] / own["requests_per_step"] / 1e9
        first = max(shares, key=shares.__getitem__)
        cells = [_at_nodes(100 * share, 0) for share in shares.values()]
        most = int(1 / shares[first])
        rows.append([str(what), *cells, _at_nodes(waiting, 2), first, f"{most:,}", f"{most * rate:,.0f}"])
    header = ["suite", "intake, %", "network, %", "broadcast, %", "waiting, GB", "full first"]
    return table([*header, "collectors then", "steps a second then"], rows)


def _at_nodes(each: float, digits: int) -> str:
    """A collector's share times the collectors of 1, 10, 100 and 1,000 nodes."""
    return " / ".join(f"{each * nodes * COLLECTORS_PER_NODE:,.{digits}f}" for nodes in NODES)


def weights() -> str:
    """What a version of the weights takes, and what the object store does."""
    found = _collection()
    rows = [
        [name, f"{own['bytes'] / 1e6:,.2f} MB", f"{1000 * own['seconds']:.1f} ms of the learner's process"]
        for name, own in found[found["bytes"].notna()].iterrows()
    ]
    one = found.loc["object store"]
    rows.append(["put into the object store", f"{one['put_bytes_per_second'] / 1e9:.2f} GB/s", ""])
    rows.append(["got and copied from it", f"{one['get_bytes_per_second'] / 1e9:.2f} GB/s", ""])
    rows.append(["a request", "", f"{1e6 * one['seconds_per_request']:.0f} us of the learner's process"])
    return table(["what", "size or rate", "takes"], rows)
