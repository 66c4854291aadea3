"""results.json with everything, and table.md for people."""

import datetime
import json

HEAD = (
    "| op | layer | medcam | libtorch | torch eager | torch.compile | floor | floor / medcam |\n"
    "|---|---|---|---|---|---|---|---|"
)


def write(run, machine, bundle, measured, start):
    """Writes both files; returns the text of the table."""
    rows, copy = joined(measured)
    described = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    results = {
        "started": start.isoformat(timespec="seconds"),
        "seconds": round((datetime.datetime.now() - start).total_seconds(), 1),
        "good": run.good(),
        "bundle": described,
        "machine": machine.facts,
        "steps": [vars(step) for step in run.steps],
        "copy_bandwidth": copy,
        "rows": rows,
        "measured": measured,
    }
    path = run.folder / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = table(results)
    (run.folder / "table.md").write_text(text, encoding="utf-8")
    return text


def joined(measured):
    """One row for each op and layer, of what was measured of it, in seconds; and the bandwidth of a
    copy, the greater of the two that were measured."""
    places = measured.get("ops", {}).get("places", [])
    ours = next((place for place in places if place["place"] == "cuda"), {})
    torch = measured.get("torch", {})
    copies = [ours.get("copy_bandwidth"), torch.get("copy_bandwidth")]
    copy = max((copy for copy in copies if copy), default=None)
    rows = {}
    for row in ours.get("rows", []):
        moved = row["bytes_read"] + row["bytes_written"]
        rows[row["id"]] = {
            "bytes": moved,
            "floor": moved / copy,
            "medcam": row["medcam"]["median"],
            "libtorch": row["libtorch"]["median"],
        }
    for row in torch.get("rows", []):
        rows.setdefault(row["id"], {})[row["how"]] = row["seconds"]
    return [{"id": name, **row} for name, row in rows.items()], copy


def table(results):
    """The steps, and the figures if there are any."""
    lines = [f"# gpu-check, {results['started']}", "", device(results["machine"]), ""]
    lines += ["| step | | | s |", "|---|---|---|---|"]
    for step in results["steps"]:
        reason = step["reason"].replace("|", "\\|")
        lines.append(f"| {step['name']} | {step['status']} | {reason} | {step['seconds']:.0f} |")
    verdict = "All that was asked for was run and is good." if results["good"] else "**Not everything is good.**"
    lines += ["", verdict]
    if results["rows"]:
        lines += ["", f"A copy in device memory: {results['copy_bandwidth'] / 1e9:.0f} GB/s, read and "
                  "written. Milliseconds per call:", "", HEAD]
        lines += [line(row) for row in results["rows"]]
    return "\n".join(lines) + "\n"


def line(row):
    """One row of the table of figures."""
    op, _, layer = row["id"].split("/", 2)
    cells = [milliseconds(row.get(key)) for key in ("medcam", "libtorch", "eager", "compiled", "floor")]
    share = f"{row['floor'] / row['medcam']:.2f}" if row.get("medcam") else ""
    return f"| {op} | {layer} | " + " | ".join(cells) + f" | {share} |"


def milliseconds(seconds):
    """Three digits that count; nothing where nothing was measured."""
    return f"{seconds * 1e3:.3g}" if seconds else ""


def device(facts):
    """The GPU in a line."""
    smi = facts["nvidia_smi"]
    if isinstance(smi, list) and smi:
        return ", ".join(f"{key} {value}" for key, value in smi[0].items())
    names = facts["driver"].get("devices")
    return f"{', '.join(names)} (no nvidia-smi)" if names else "No CUDA device."
