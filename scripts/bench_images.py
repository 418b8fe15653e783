"""How fast images' bytes and placement are, for scripts/bench: beside what `cp` and a plain file server reach."""

import http.server, os, shutil, statistics, subprocess, threading, time, uuid
from concurrent.futures import ThreadPoolExecutor

GIB = 1 << 30
IMAGES = 10_000
PROVIDERS = 10_000
CLAIMED = 1_000
FULL = 9_000
ROOM = 4


class FileServer(http.server.SimpleHTTPRequestHandler):
    """Gives files and takes them, each on the disk before it says so."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        with open(self.translate_path(self.path), "wb") as file:
            while left and (chunk := self.rfile.read(min(left, 1 << 20))):
                file.write(chunk)
                left -= len(chunk)
            os.fsync(file.fileno())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def curl(*words):
    subprocess.run(["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--header", "Expect:", *map(str, words)], check=True)


def rate(work):
    """MB/s of a gibibyte."""
    began = time.monotonic()
    work()
    return GIB / 1e6 / (time.monotonic() - began)


def copied(source, to):
    shutil.copyfile(source, to)
    with open(to) as file:
        os.fsync(file.fileno())


class Memory(threading.Thread):
    """The most that the program had while it ran."""

    def __init__(self, program):
        super().__init__(daemon=True)
        self.program, self.most, self.over = program, 0, threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, self.program.resident_mib())


def images(program, admin, row, load, directory):
    source, copy = directory / "gibibyte", directory / "copy"
    with open(source, "wb") as file:
        for _ in range(64):
            file.write(os.urandom(GIB // 64))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *words: FileServer(*words, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    plain = f"http://127.0.0.1:{server.server_port}/copy"
    cp = rate(lambda: copied(source, copy))
    server_up = rate(lambda: curl("--upload-file", source, plain))
    server_down = rate(lambda: curl(plain))
    server.shutdown()
    image = admin.post("image", "/v2/images", {"name": "bench", "disk_format": "raw", "container_format": "bare"})["id"]
    url = f"{admin.urls['image']}/v2/images/{image}/file"
    token = f"X-Auth-Token: {admin.headers['X-Auth-Token']}"
    before = program.resident_mib()
    memory = Memory(program)
    memory.start()
    up = rate(lambda: curl("--upload-file", source, "--header", token, "--header", "Content-Type: application/octet-stream", url))
    down = rate(lambda: curl("--header", token, url))
    memory.over.set()
    memory.join()
    admin.ask("DELETE", "image", f"/v2/images/{image}")
    row("1 GiB to the disk: cp and fsync, plain file server", "", f"{cp:.0f}, {server_up:.0f} MB/s", True)
    goal = min(cp, server_up) / 2
    row("upload of 1 GiB", f">= {goal:.0f} MB/s", f"{up:.0f} MB/s", up >= goal)
    row("download of 1 GiB, plain file server", "", f"{server_down:.0f} MB/s", True)
    row("download of 1 GiB", f">= {server_down / 2:.0f} MB/s", f"{down:.0f} MB/s", down >= server_down / 2)
    more = memory.most - before
    row("memory meanwhile, beyond what it had", "<= 64 MiB", f"{more:.0f} MiB", more <= 64)

    load("POST", f"{admin.urls['image']}/v2/images", admin, "--connections", "16", "--requests", str(IMAGES), body={"name": "bench-{n}"})
    began, seen, path = time.monotonic(), 0, "/v2/images?limit=1000"
    while path:
        page = admin.get("image", path)
        seen, path = seen + len(page["images"]), page.get("next")
    seconds = time.monotonic() - began
    row(f"list of {IMAGES} images by pages of 1000", "", f"{seconds:.2f} s", seen >= IMAGES)


def placement(admin, row):
    asker = admin.at("placement 1.39")
    ids = [str(uuid.uuid4()) for _ in range(PROVIDERS)]

    def provider(number):
        asker.ask("POST", "placement", "/resource_providers", {"name": f"bench-{number}", "uuid": ids[number]})
        totals = {"VCPU": ROOM if number < CLAIMED else 64, "MEMORY_MB": 65536, "DISK_GB": 2000}
        inventories = {name: {"total": total} for name, total in totals.items()}
        asker.ask("PUT", "placement", f"/resource_providers/{ids[number]}/inventories", {"resource_provider_generation": 0, "inventories": inventories})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(provider, range(PROVIDERS)))
    candidates(asker, row, f"candidates of {PROVIDERS} providers")

    def claim(number):
        body = {"allocations": {ids[number % CLAIMED]: {"resources": {"VCPU": 1, "MEMORY_MB": 512}}}, "project_id": "p", "user_id": "u",
                "consumer_generation": None, "consumer_type": "BENCH"}
        path = f"{asker.urls['placement']}/allocations/{uuid.uuid4()}"
        return asker.session.put(path, json=body, headers=asker.headers, timeout=60).status_code

    began = time.monotonic()
    with ThreadPoolExecutor(100) as pool:
        statuses = list(pool.map(claim, range(CLAIMED * (ROOM + 1))))
    seconds = time.monotonic() - began
    taken, refused = statuses.count(204), statuses.count(409)
    used = [asker.get("placement", f"/resource_providers/{id}/usages")["usages"]["VCPU"] for id in ids[:CLAIMED]]
    exact = taken == CLAIMED * ROOM and refused == CLAIMED and set(used) == {ROOM}
    row(f"claims on {CLAIMED} providers, 100 at once, {taken} fit", ">= 100 /s", f"{len(statuses) / seconds:.0f} /s", exact and len(statuses) / seconds >= 100)

    def fill(number):
        body = {"allocations": {ids[number]: {"resources": {"VCPU": 64}}}, "project_id": "p", "user_id": "u", "consumer_generation": None,
                "consumer_type": "BENCH"}
        asker.ask("PUT", "placement", f"/allocations/{uuid.uuid4()}", body)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(fill, range(CLAIMED, FULL)))
    candidates(asker, row, f"the same when {FULL} are full")


def candidates(asker, row, what):
    """Asks for a thousand, which are there."""
    times = []
    for _ in range(7):
        began = time.monotonic()
        answer = asker.ask("GET", "placement", "/allocation_candidates?resources=VCPU:1,MEMORY_MB:512,DISK_GB:10&limit=1000")
        times.append(1000 * (time.monotonic() - began))
    found = len(answer.json()["allocation_requests"])
    median = statistics.median(times)
    row(f"{what}, limit 1000, median of 7", "<= 50 ms", f"{median:.0f} ms", median <= 50 and found == 1000)
