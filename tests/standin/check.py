#!/usr/bin/env python3
"""Checks the stand-in itself: usage check.py OUT, after `make OUT=OUT`.

Replays random scripts and compares `state` and `live` with a model of its own: addresses must not
overlap, totals must add up, and every allocation must be counted once.
"""
import json
import random
import subprocess
import sys

TYPES = ["DRAM", "L1", "SYSTEM_MEMORY", "L1_SMALL", "TRACE"]


class Driver:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == f"ready pid={self.process.pid}\n"

    def __call__(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def ok(self, line):
        reply = self(line)
        assert reply.startswith("ok"), (line, reply)
        return dict(word.split("=", 1) for word in reply.split()[1:])


def check_tables(driver, expected=None):
    state, live = json.loads(driver("state")), json.loads(driver("live"))
    for row in state["allocators"]:
        of_pool = [b for b in live if b["device"] == row["device"] and b["type"] == row["type"]]
        assert row["consistent"], row
        assert row["buffers"] == len(of_pool), row
        assert row["logical_bytes"] == sum(b["size"] for b in of_pool), row
        assert row["bank_bytes"] == sum(b["bank_bytes"] for b in of_pool), row
        assert row["used"] == row["bank_bytes"] * row["banks"] <= row["capacity"], row
        end = 0
        for buffer in sorted(of_pool, key=lambda b: b["address"]):
            assert buffer["address"] >= end, (buffer, end)
            end = buffer["address"] + buffer["bank_bytes"]
    for row in state["chips"]:
        of_chip = [b for b in live if row["chip"] in b["chips"] and b["type"] == row["type"]]
        assert row["buffers"] == len(of_chip), row
        assert row["bank_bytes"] == sum(b["bank_bytes"] for b in of_chip), row
    hosts = [b["host"] for b in live]
    assert len(set(hosts)) == len(hosts)
    if expected is not None:
        assert {b["host"]: (b["address"], b["size"], b["bank_bytes"]) for b in live} == expected, (live, expected)
    return live


def check_script(path, seed):
    driver, rng = Driver(path), random.Random(seed)
    driver.ok("open mesh 0 2 name=m")
    driver.ok("open device 2 arch=blackhole name=d")
    driver.ok("submesh m 1 1 name=s")
    named, model = {}, {}
    for step in range(1500):
        if named and rng.random() < 0.48:
            name = rng.choice(list(named))
            driver.ok(f"free {name}")
            del model[named.pop(name)]
            continue
        type_name, page = rng.choice(TYPES), rng.choice([16, 48, 512, 1000])
        size = page * rng.randrange(1, 12)
        shards = rng.choice(["", "", " cores=9 shard=64x32 page=32x32", " dist=10,4,2"]) if type_name == "L1" else ""
        reply = driver.ok(f"alloc b{step} {rng.choice('mds')} {type_name} {size} {page}{shards}")
        named[f"b{step}"] = reply["host"]
        model[reply["host"]] = (int(reply["address"], 16), size, int(reply["bank_bytes"]))
        if step % 100 == 0:
            check_tables(driver, model)
    check_tables(driver, model)
    assert driver("oom m DRAM").startswith("caught Out of Memory")
    assert driver.ok("throw 20")["caught"] == "20"
    assert int(driver.ok("hooked d")["address"], 16) == 0
    check_tables(driver, model)
    counts = driver.ok("churn 4 3000 7 keep=5")
    assert (counts["allocations"], counts["frees"], counts["failed"], counts["kept"]) == ("12020", "12000", "0", "20")
    assert len(check_tables(driver)) == len(model) + 20
    assert driver.ok("release")["frees"] == "20"
    driver.process.stdin.write("stir 2 7 keep=5\n")
    assert int(driver.ok("enough")["allocations"]) >= 10
    assert driver.ok("release")["frees"] == "10"
    assert driver.ok("storm 5000")["allocations"] == "5000"
    assert driver.ok("fork 5")["status"] == "0"
    check_tables(driver, model)

    on_submesh = len([b for b in check_tables(driver) if b["device"] == "s"])
    assert driver.ok("bulk s")["buffers"] == str(on_submesh)
    assert not [b for b in check_tables(driver) if b["device"] == "s"]
    driver.ok("close m")
    for name in named:
        driver.ok(f"free {name}")
    # Only now: a late free would take its block.
    driver.ok("alloc fresh s L1 64 64")
    assert [b["device"] for b in check_tables(driver)] == ["s"]
    assert driver("exec") == f"ready pid={driver.process.pid}"
    assert json.loads(driver("live")) == []
    driver.process.stdin.write("quit 5\n")
    driver.process.stdin.close()
    assert driver.process.wait() == 5


for variant in ["pimpl", "inline", "cet", "stripped"]:
    for seed in range(3):
        check_script(f"{sys.argv[1]}/{variant}/driver", seed)
    crashed = subprocess.run([f"{sys.argv[1]}/{variant}/driver"], input="crash\n", text=True, capture_output=True)
    assert crashed.returncode == -11, crashed
    print(variant, "ok")
