"""What the workers of bench/gpu.py report, printed line by line and kept for the summary."""


class Sheet:
    """What was found, printed line by line and kept for the summary."""

    def __init__(self, peak_tflops: float | None, method: str):
        self.peak, self.operations = peak_tflops, 6 if method == "full" else 4
        self.checks: dict[str, dict] = {}
        self.rates: dict[str, dict] = {}
        self.memory: dict[str, dict] = {}
        self.skipped: list[str] = []

    def take(self, row: dict) -> None:
        """Prints and keeps one report of a worker."""
        kind, name = row.pop("kind"), row.pop("name")
        getattr(self, f"_{kind}")(name, row)

    def _check(self, name: str, row: dict) -> None:
        self.checks[name] = row
        self.line("check", name, "passed" if row["ok"] else "FAILED", row["detail"])

    def _rate(self, name: str, row: dict) -> None:
        self.rates[name] = {"ours": row["ours"], row["of"]: row["peer"], "ratio": {row["of"]: row["ratio"]}}
        shown = f"{row['ours']:,.0f} tokens/s, {row['of']} {row['peer']:,.0f}"
        self.line("rate", name, f"{row['ratio']:.2f} ×", shown)

    def _training(self, name: str, row: dict) -> None:
        entry, side = self.rates.setdefault(name, {}), row["side"]
        entry[side] = row["speed"]
        if row["memory"] is not None:
            entry.setdefault("memory_gb", {})[side] = row["memory"]
        shown = f"{side} {row['speed']:,.0f} tokens/s"
        # Of an update that samples, decoding takes most of the time and few operations.
        if self.peak and not name.startswith("online"):
            operations = self.operations + 2 * name.startswith("dpo")
            mfu = row["speed"] * operations * row["weights"] / (self.peak * 1e12)
            entry.setdefault("mfu", {})[side] = mfu
            shown += f", MFU {mfu:.1%}"
        shown += f", {row['memory']:.1f} GB" if row["memory"] is not None else ""
        ratio = ""
        if side == "TRL" and "ours" in entry:
            entry["ratio"] = {"trl": entry["ours"] / entry["TRL"]}
            ratio = f"{entry['ratio']['trl']:.2f} ×"
        self.line("rate", name, ratio, shown)

    def _memory(self, name: str, row: dict) -> None:
        self.memory[name] = row
        self.line(
            "memory", name, f"{row['ratio']:.2f} ×", f"estimated {row['estimated']:.1f} GB, took {row['used']:.1f} GB"
        )

    def _skipped(self, name: str, row: dict) -> None:
        self.skipped.append(f"{name}: {row['why']}")
        self.line("skipped", name, "", row["why"])

    def line(self, kind: str, name: str, verdict: str, detail: str) -> None:
        """Prints a row of the table."""
        print(f"| {kind} | {name} | {verdict} | {detail.replace('|', '/')} |", flush=True)
