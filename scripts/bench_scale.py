"""Many hosts and servers on one pretended cloud. Used by scripts/bench."""

import os, re, time
from pathlib import Path

from cloud import ROOT, until

HOSTS = 1000
FEW, MANY = 100, 10_000
# Times as long as with few servers a page may take.
FLAT = 1.3
PAGE = 100
CONNECTIONS = "16"
# A page of so many stands in the middle of a hundred servers as well as of ten thousand.
HALF = 50
ASKED = "1000"
QUIET_CORES, QUIET_WITHIN_SECONDS = 0.1, 120


def scale(program, admin, row, load, hosts=HOSTS, many=MANY):
    """Boots and lists with a hundred servers and with ten thousand, on a thousand hosts."""
    admin.ask("PUT", "compute", f"/os-quota-sets/{admin.project_id}", {"quota_set": {"instances": -1, "cores": -1, "ram": -1}})
    admin.ask("PUT", "network", f"/v2.0/quotas/{admin.project_id}", {"quota": {"port": -1}})
    heard = len(admin.get("compute", "/os-services?binary=nova-compute")["services"])
    row("compute hosts in one process", f"{hosts}", f"{heard}", heard == hosts)
    row("resident memory with them", "", f"{program.resident_mib():.0f} MiB", True)
    image = admin.post("image", "/v2/images", {"name": "scale", "disk_format": "raw", "container_format": "bare"})
    admin.ask("PUT", "image", f"/v2/images/{image['id']}/file", data=bytes(1 << 20), headers={"Content-Type": "application/octet-stream"})
    flavor = admin.post("compute", "/flavors", {"flavor": {"name": "scale", "ram": 64, "vcpus": 1, "disk": 1}})["flavor"]["id"]
    network = admin.post("network", "/v2.0/networks", {"network": {"name": "scale"}})["network"]["id"]
    admin.post("network", "/v2.0/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.64.0.0/16"}})
    body = {"server": {"name": "s{n}", "imageRef": image["id"], "flavorRef": flavor, "networks": [{"uuid": network}]}}
    seen = {}
    before = 0
    for count in (FEW, many):
        began = time.monotonic()
        made = load("POST", f"{admin.urls['compute']}/servers", admin, "--connections", CONNECTIONS, "--requests", str(count - before), "--seconds", "3600", body=body)
        all_run(admin, count)
        rate = (count - before) / (time.monotonic() - began)
        busy = quiet(program)
        seen[count] = made["p99_ms"], rate, busy, pages(admin, load)
        before = count
    (_, few_rate, few_busy, few_pages), (post, rate, busy, many_pages) = seen[FEW], seen[many]
    row(f"boots, the first {FEW}", "", f"{few_rate:.1f} /s", True)
    row(f"boots, {many} in all", "", f"{rate:.1f} /s", True)
    row("POST /servers meanwhile, 99th percentile", "<= 25 ms", f"{post:.1f} ms", post <= 25)
    row("cores in use before the pages are asked for", "", f"{few_busy:.2f}, {busy:.2f}", True)
    for what, few in few_pages.items():
        page = many_pages[what]
        row(f"{what}, {FEW} servers, median and 99th", "", f"{few['p50_ms']:.1f}, {few['p99_ms']:.1f} ms", True)
        goal = FLAT * few["p99_ms"]
        row(f"the same, {many} servers", f"<= {goal:.1f} ms", f"{page['p50_ms']:.1f}, {page['p99_ms']:.1f} ms", page["p99_ms"] <= goal)
    row("resident memory with all servers", "", f"{program.resident_mib():.0f} MiB", True)
    size = sum(path.stat().st_size for path in (program.state / "db").iterdir()) / 1024 / 1024
    row("databases", "", f"{size:.0f} MiB", True)
    large = scanned(program)
    row("statements that read a whole table that grows", "0", f"{len(large)}", not large)
    for table, sql in sorted(large):
        print(f"    {table}: {sql}")


def scanned(program):
    """Statements of this run that read whole tables, but for those that stay small."""
    lines = [line.split("\t") for line in (ROOT / "scripts/whole-tables.tsv").read_text().splitlines()]
    told = re.findall(r'reads a whole table table="([\w.-]+)" sql="((?:[^"\\]|\\.)*)"', program.log.read_text(errors="replace"))
    return {(table, sql) for table, sql in told if not any(table == known and sql.endswith(ending) for known, ending, _ in lines)}


def pages(admin, load):
    """Pages at the beginning of the list and in its middle, of the same length however many servers there are."""
    servers = f"{admin.urls['compute']}/servers"
    there = f"limit={HALF}&marker={middle(admin)}"
    asked = {
        f"the first {PAGE} in detail": f"{servers}/detail?limit={PAGE}",
        f"{HALF} in the middle, in detail": f"{servers}/detail?{there}",
        f"the first {PAGE} names": f"{servers}?limit={PAGE}",
        f"{HALF} names in the middle": f"{servers}?{there}",
    }
    return {what: load("GET", url, admin, "--connections", "1", "--requests", ASKED) for what, url in asked.items()}


def middle(admin):
    """The server half way down the list."""
    ids, page = [], [None]
    while page:
        marker = f"&marker={ids[-1]}" if ids else ""
        page = [server["id"] for server in admin.get("compute", f"/servers?limit=1000{marker}")["servers"]]
        ids += page
    return ids[len(ids) // 2 - 1]


def quiet(program):
    """Waits for the end of what is still done after the boots; how many cores a second of quiet takes."""
    began = time.monotonic()
    while True:
        before = cpu_seconds(program)
        time.sleep(1)
        cores = cpu_seconds(program) - before
        if cores <= QUIET_CORES or time.monotonic() - began > QUIET_WITHIN_SECONDS:
            return cores


def cpu_seconds(program):
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def all_run(admin, count):
    def look():
        building = admin.get("compute", "/servers?status=BUILD&limit=1")["servers"]
        failed = admin.get("compute", "/servers?status=ERROR&limit=1")["servers"]
        if failed:
            raise SystemExit(f"a server failed: {admin.get('compute', '/servers/' + failed[0]['id'])['server'].get('fault')}")
        return not building
    until(f"{count} servers run", 3600, look, pause=0.5)
