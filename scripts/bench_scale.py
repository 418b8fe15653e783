"""Many hosts and servers on one pretended cloud. Used by scripts/bench."""

import time

from cloud import until

HOSTS = 1000
FEW, MANY = 100, 10_000
PAGE = 100
CONNECTIONS = "16"


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
        page = load("GET", f"{admin.urls['compute']}/servers/detail?limit={PAGE}", admin, "--connections", "1", "--requests", "100")
        names = load("GET", f"{admin.urls['compute']}/servers?limit={PAGE}&marker={middle(admin)}", admin, "--connections", "1", "--requests", "100")
        seen[count] = made["p99_ms"], page["p99_ms"], names["p99_ms"], rate
        before = count
    (_, few_page, few_names, few_rate), (post, page, names, rate) = seen[FEW], seen[many]
    row(f"boots, the first {FEW}", "", f"{few_rate:.1f} /s", True)
    row(f"boots, {many} in all", "", f"{rate:.1f} /s", True)
    row("POST /servers meanwhile, 99th percentile", "<= 25 ms", f"{post:.1f} ms", post <= 25)
    row(f"a page of {PAGE} in detail, 99th percentile, {FEW} servers", "", f"{few_page:.1f} ms", True)
    row(f"the same, {many} servers", "flat", f"{page:.1f} ms", page <= 2 * few_page)
    row(f"a page of {PAGE} names in the middle, {FEW} servers", "", f"{few_names:.1f} ms", True)
    row(f"the same, {many} servers", "flat", f"{names:.1f} ms", names <= 2 * few_names)
    row("resident memory with all servers", "", f"{program.resident_mib():.0f} MiB", True)
    size = sum(path.stat().st_size for path in (program.state / "db").iterdir()) / 1024 / 1024
    row("databases", "", f"{size:.0f} MiB", True)


def middle(admin):
    """A server half way down the list."""
    servers = admin.get("compute", "/servers?limit=1000")["servers"]
    return servers[len(servers) // 2]["id"]


def all_run(admin, count):
    def look():
        building = admin.get("compute", "/servers?status=BUILD&limit=1")["servers"]
        failed = admin.get("compute", "/servers?status=ERROR&limit=1")["servers"]
        if failed:
            raise SystemExit(f"a server failed: {admin.get('compute', '/servers/' + failed[0]['id'])['server'].get('fault')}")
        return not building
    until(f"{count} servers run", 3600, look, pause=0.5)
