"""A cloud of a script's own, and its API over plain HTTP. Used by scripts/chaos and scripts/bench."""

import itertools, os, signal, subprocess, sys, time
from pathlib import Path

import requests, yaml

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_SECONDS = 180
ANSWER_WITHIN_SECONDS = 60
# Away from a cloud that runs on this machine.
ADDRESSES = (f"127.77.{os.getpid() >> 7 & 0xff}.{(os.getpid() & 0x7f) + number}" for number in itertools.count(1))


class Refused(Exception):
    def __init__(self, answer, what):
        self.status, self.text = answer.status_code, answer.text
        super().__init__(f"{what}: {self.status} {self.text[:500]}")


class Unreachable(Exception):
    """The cloud is gone, or went while it was asked."""


class Program:
    """The program on a state directory."""

    def __init__(self, directory, simulate, options=None):
        self.binary = os.environ.get("FERROSTACK", str(ROOT / "target/release/ferrostack"))
        self.state, self.log = directory / "state", directory / "log"
        self.line = [self.binary, "run", "--state", str(self.state)]
        self.simulate = simulate
        if simulate:
            self.line += ["--simulate", "--listen", next(ADDRESSES)]
        self.environment = os.environ | (options or {})
        self.process = None

    def start(self):
        """Returns when the cloud is ready."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, start_new_session=True)
        end = time.monotonic() + READY_WITHIN_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None:
                raise SystemExit(f"the cloud ended at once, with {self.process.returncode}")
            if time.monotonic() > end:
                raise SystemExit(f"the cloud is not ready after {READY_WITHIN_SECONDS} s")
            time.sleep(0.01)

    def is_ready(self):
        try:
            return (self.state / "ready").read_text() == str(self.process.pid)
        except FileNotFoundError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Stops it and removes what it made on the machine."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        subprocess.run([self.binary, "clean", "--state", str(self.state)], check=True, stdout=subprocess.DEVNULL)

    def clouds(self):
        return self.state / "clouds.yaml"

    def resident_mib(self):
        return int(next(line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024

    def last_words(self):
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "-- the cloud's last words:\n" + "\n".join(lines[-40:])

    def on_the_machine(self):
        """What real guests leave: domains, links of this network, namespaces, files."""
        socket = self.state / "libvirt/run/libvirt-sock"
        domains = subprocess.run(["virsh", "-q", "-c", f"qemu:///system?socket={socket}", "list", "--all", "--name"], capture_output=True, text=True, check=True)
        files = [str(path) for folder in ("instances", "volumes") for path in (self.state / folder).rglob("*") if path.is_file()]
        spaces = self.state / "net/netns"
        return {
            "domains": sorted(domains.stdout.split()),
            "links": sorted(os.listdir("/sys/class/net")),
            "namespaces": sorted(os.listdir(spaces)) if spaces.exists() else [],
            # Copies of images are kept for the next guest.
            "files": sorted(path for path in files if "/_base/" not in path and not path.endswith(".lock")),
        }


class Caller:
    """Somebody with a token."""

    def __init__(self, clouds, name):
        cloud = yaml.safe_load(Path(clouds).read_text())["clouds"][name]
        auth = cloud["auth"]
        self.url = auth["auth_url"]
        self.body = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
            "name": auth["username"], "password": auth["password"], "domain": {"id": auth["user_domain_id"]}}}},
            "scope": {"project": {"name": auth["project_name"], "domain": {"id": auth["project_domain_id"]}}}}}
        answer = requests.post(f"{self.url}/auth/tokens", json=self.body, timeout=ANSWER_WITHIN_SECONDS)
        if answer.status_code != 201:
            raise Refused(answer, f"{name} signs in")
        token = answer.json()["token"]
        self.project_id, self.user_id = token["project"]["id"], token["user"]["id"]
        self.headers = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
        types = {"block-storage": "volume", "volumev3": "volume"}
        self.urls = {types.get(service["type"], service["type"]): next(e["url"] for e in service["endpoints"] if e["interface"] == "public").rstrip("/")
                     for service in token["catalog"]}
        # One keeps its connection for each thread that calls.
        self.session = requests.Session()
        self.session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=64))

    def at(self, version):
        """The same person who asks for a microversion."""
        other = object.__new__(Caller)
        other.__dict__ = self.__dict__ | {"headers": self.headers | {"OpenStack-API-Version": version}}
        return other

    def ask(self, method, service, path, body=None, data=None, headers=None):
        what = f"{method} {service} {path}"
        try:
            answer = self.session.request(method, self.urls[service] + path, json=body, data=data, headers=self.headers | (headers or {}), timeout=ANSWER_WITHIN_SECONDS)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise Unreachable(what) from error
        if answer.status_code >= 300:
            raise Refused(answer, what)
        return answer

    def get(self, service, path):
        return self.ask("GET", service, path).json()

    def post(self, service, path, body):
        return self.ask("POST", service, path, body).json()


def until(what, seconds, look, last=None, pause=0.1):
    """Looks until something is so; ends with what is not, when it does not come."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            said = last() if last else ""
            raise SystemExit(f"did not come in {seconds} s: {what}\n" + "\n".join(said if isinstance(said, list) else [str(said)]))
        time.sleep(pause)
    return found


def own_network():
    """Starts this script again in a network namespace of its own: whatever is left over there is ours."""
    if "IN_OWN_NETWORK" not in os.environ:
        inside = 'mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"'
        os.execvpe("unshare", ["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c", inside, "sh", sys.executable, *sys.argv],
                   os.environ | {"IN_OWN_NETWORK": "1"})
