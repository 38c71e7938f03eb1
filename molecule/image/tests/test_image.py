"""From a registry to the servers: bytes at the source, sources, and all that can go wrong on the way."""

from __future__ import annotations

import re
import subprocess

import pytest
from outside import FOLDER, SERVERS, SIZE

testinfra_hosts = ["image1"]

# What TLS, manifests and the beginning of a cut-off chunk may add to the image's bytes.
SLACK = 1_000_000
CHUNK = 4 * 1024 * 1024


def left(server) -> list[str]:
    return [name for name in SERVERS if server(name).file(FOLDER).exists]


def test_a_converged_run_asks_little_and_changes_nothing(run, world):
    before = world.count
    again = run()
    assert again.good, again.output
    for name in SERVERS:
        assert again.recap(name)["changed"] == 0, again.output
        # Arguments, engine, an include, image; the first host decides for all, and reads the CA here.
        assert again.recap(name)["ok"] <= 6, again.output
    assert world.count == before


@pytest.mark.usefixtures("bare")
def test_the_image_leaves_the_source_once(run, world, ids, server):
    before = world.count
    done = run(docker_image_digest=world.digest())
    assert done.good, done.output
    assert SIZE <= world.count - before < SIZE + SLACK
    assert ids(world.image()) == [world.image_id()] * len(SERVERS)
    assert left(server) == []
    again = run(docker_image_digest=world.digest())
    assert again.good, again.output
    assert all(again.recap(name)["changed"] == 0 for name in SERVERS), again.output


@pytest.mark.usefixtures("bare")
def test_a_pin_holds_whatever_the_tag_means(run, world, ids):
    """From the registry to one, and from there to the others when they come later."""
    pinned = {"docker_image_digest": world.digest("v2")}
    done = run("--limit", "image1,source", **pinned)
    assert done.good, done.output
    done = run(**pinned, docker_image_source="none")
    assert done.good, done.output
    assert ids(world.image("v1")) == [world.image_id("v2")] * 3
    again = run(**pinned)
    assert again.good, again.output
    assert all(again.recap(name)["changed"] == 0 for name in SERVERS), again.output


@pytest.mark.usefixtures("bare")
def test_check_mode_says_who_gets_it_from_where(run, world, ids):
    done = run("--check")
    assert done.good, done.output
    assert f"{world.image()} would be fetched from its registry." in done.told
    assert f"{world.image()} would be copied from image2." in done.told
    assert ids(world.image()) == ["", "", ""]


@pytest.mark.usefixtures("bare")
def test_a_mirror_is_asked_first_and_the_registry_when_it_has_gone(run, world, ids):
    world.gate(more=0)
    mirrors = ["http://127.0.0.1:1", f"http://{world.address}:5003"]
    done = run("--limit", "image1,image2,source", docker_registry_mirrors=mirrors)
    assert done.good, done.output
    assert ids(world.image(), SERVERS[:2]) == [world.image_id()] * 2

    world.gate()
    done = run("--limit", "image3,source", docker_registry_mirrors=["http://127.0.0.1:1"])
    assert done.good, done.output
    assert ids(world.image()) == [world.image_id()] * 3


@pytest.mark.usefixtures("bare")
def test_a_refused_login_says_so_and_not_the_password(run, world, ids, server):
    done = run("-vvv", converge_password="not-the-password")
    assert not done.good
    assert f"{world.address}:5000 refuses ascend/tiny as rollout" in done.told
    assert "docker_registry_login" in done.told
    assert "not-the-password" not in done.output.replace("converge_password", "").split("TASK [", 1)[1]
    assert ids(world.image()) == ["", "", ""]
    assert all("not-the-password" not in server(name).run("cat /proc/*/cmdline").stdout for name in SERVERS)


@pytest.mark.usefixtures("bare")
def test_a_transfer_cut_at_60_percent_goes_on_from_there(run, world, ids, part, until, server):
    before = world.count
    # Cut when the last one has something, too; until then the uplink stands still.
    world.gate(hold=SIZE * 60 // 100)
    started = run.start()
    until("image3", CHUNK)
    until("image1", 8 * CHUNK)
    world.gate(more=0)
    done = run.end(started)
    assert not done.good
    assert "cannot be reached" in done.told or "ended the transfer" in done.told
    assert "MB are kept, from which the next run resumes" in done.told
    assert part("image1") > SIZE * 60 // 100 - CHUNK - SLACK
    assert part("image3") > 0

    world.gate()
    done = run()
    assert done.good, done.output
    assert "MB were there from an earlier run" in done.told
    assert SIZE <= world.count - before < SIZE + CHUNK + 2 * SLACK
    assert ids(world.image()) == [world.image_id()] * 3
    assert left(server) == []


@pytest.mark.usefixtures("bare")
def test_the_first_server_dies_and_another_goes_on(run, world, ids, until, processes, server):
    before = world.count
    # The first cannot have all before it dies, however long it takes to see how far the others are.
    world.gate(hold=6 * CHUNK)
    started = run.start()
    for name in ("image2", "image3"):
        until(name, 4 * CHUNK)
    server("image1").check_output(f"kill -9 {processes('image1')}")
    done = run.end(started)
    assert not done.good
    assert "ERROR image-transfer-gone image1" in done.told
    assert "ERROR image-source-failed image2" in done.told

    # Without the first: the second goes on with what it has of the first.
    world.gate()
    done = run("--limit", "image2,image3,source")
    assert done.good, done.output
    assert SIZE <= world.count - before < SIZE + 3 * CHUNK + 2 * SLACK
    assert ids(world.image(), SERVERS[1:]) == [world.image_id()] * 2


@pytest.mark.usefixtures("bare")
def test_a_server_in_the_middle_dies_and_the_next_takes_from_another(
    run, world, ids, until, processes, server
):
    world.gate(hold=4 * CHUNK)
    started = run.start()
    until("image3", 2 * CHUNK)
    server("image2").check_output(f"kill -9 {processes('image2')}")
    world.gate()
    done = run.end(started)
    assert not done.good
    assert "image2 did not get" in done.told
    assert ids(world.image(), ("image1", "image3")) == [world.image_id()] * 2
    done = run()
    assert done.good, done.output
    assert ids(world.image()) == [world.image_id()] * 3


@pytest.mark.usefixtures("bare")
def test_after_an_interrupt_servers_end_by_themselves(run, world, until, processes, server):
    world.gate(hold=4 * CHUNK)
    # More seconds than lie between two words of the controller on a busy machine.
    started = run.start(docker_image_idle=20)
    until("image2", 2 * CHUNK)
    pids = {name: processes(name) for name in SERVERS}
    run.interrupt(started)
    for name in SERVERS:
        gone = f"timeout 120 sh -c 'while test -e /proc/{pids[name]}; do sleep 0.2; done'"
        server(name).check_output(gone)
        assert server(name).run(f"ls -A {FOLDER}").stdout.split() == ["archive.part"]
    world.gate()
    done = run()
    assert done.good, done.output
    assert "MB were there from an earlier run" in done.told
    assert left(server) == []


@pytest.fixture
def small(server):
    """A disk of 640 MB on the second server; 512 of them are to be left free."""
    server("image2").check_output("mkdir -p /mnt/small && mount -t tmpfs -o size=640M tmpfs /mnt/small")
    yield "/mnt/small/transfer"
    server("image2").check_output("umount /mnt/small && rmdir /mnt/small")


@pytest.mark.usefixtures("bare")
def test_a_disk_without_room_is_seen_before_the_first_byte(run, server, small):
    server("image2").check_output("fallocate --length 100M /mnt/small/other")
    done = run("--limit", "image2,source", docker_image_directory=small)
    assert not done.good
    assert f"the disk of {small} has" in done.told
    assert "MB free, the image needs" in done.told
    server("image2").check_output("rm /mnt/small/other")


@pytest.mark.usefixtures("bare")
def test_a_disk_that_fills_up_on_the_way(run, world, ids, server, small):
    world.gate(hold=4 * CHUNK)
    started = run.start("--limit", "image2,source", docker_image_directory=small)
    server("image2").check_output(
        f"timeout 240 sh -c 'until test $(stat -c %s {small}/archive.part || echo 0) -gt 9000000;"
        " do sleep 0.1; done' 2>&1"
    )
    server("image2").run("dd if=/dev/zero of=/mnt/small/other bs=1M")
    world.gate()
    done = run.end(started)
    assert not done.good
    assert f"the disk of {small} is full" in done.told
    assert "docker_image_directory" in done.told
    server("image2").check_output("rm /mnt/small/other")
    done = run("--limit", "image2,source", docker_image_directory=small)
    assert done.good, done.output
    assert ids(world.image(), ("image2",)) == [world.image_id()]


SAVED = "ascend/tiny:saved"


@pytest.fixture
def saved(world, servers):
    """`saved("gzip --fast", "image2")`: the image's archive on a server that nobody else has it from."""

    def save(pack: str, name: str, path: str = "/srv/image/a.tar") -> str:
        world.host.check_output(
            f"docker tag 127.0.0.1:5002/ascend/tiny:v1 {SAVED}; docker save {SAVED} | {pack} > /tmp/a"
        )
        give(servers, name, path, world.host.file("/tmp/a").content)
        return path

    yield save
    for name in SERVERS:
        subprocess.run(["docker", "exec", servers[name]["container"], "rm", "-rf", "/srv/image"], check=False)


def give(servers, name: str, path: str, content: bytes, mode: str = "644") -> None:
    """Put a file on a server."""
    folder = path.rpartition("/")[0]
    put = f"mkdir -p {folder} && cat > {path} && chmod {mode} {path}"
    done = subprocess.run(
        ["docker", "exec", "-i", servers[name]["container"], "sh", "-c", put], input=content, check=False
    )
    assert done.returncode == 0


def archived(world, path: str, **more) -> dict:
    return {
        "docker_image": SAVED,
        "docker_image_source": "archive",
        "docker_image_archive": path,
        "docker_image_digest": world.image_id(),
        **more,
    }


@pytest.mark.usefixtures("bare")
def test_an_archive_on_one_server_comes_to_all(run, world, ids, saved):
    """It is saved on the registry's host, and lies on the second server only."""
    before = world.count
    done = run(**archived(world, saved("gzip --fast", "image2")))
    assert done.good, done.output
    assert ids(SAVED) == [world.image_id()] * 3
    assert world.count == before


@pytest.fixture
def without_zstd(server):
    """Servers have it only as long as the test that brings it."""
    yield
    for name in SERVERS:
        server(name).check_output("rm -f /usr/local/bin/zstd")


@pytest.mark.usefixtures("bare", "without_zstd")
def test_a_zstd_archive_needs_zstd_on_the_servers_and_says_so(run, world, ids, saved, servers):
    path = saved("/opt/source/zstd -1", "image2")
    done = run(**archived(world, path))
    assert not done.good
    for name in SERVERS:
        assert f"{name} did not get {SAVED}" in done.told
    assert "Install zstd, or compress the archive with gzip" in done.told
    assert ids(SAVED) == ["", "", ""]

    for name in SERVERS:
        give(servers, name, "/usr/local/bin/zstd", world.host.file("/opt/source/zstd").content, "755")
    done = run(**archived(world, path))
    assert done.good, done.output
    assert ids(SAVED) == [world.image_id()] * 3


@pytest.mark.usefixtures("bare")
def test_an_archive_on_the_controller_goes_on_from_what_an_earlier_run_left(
    run, world, ids, saved, servers, server, tmp_path
):
    saved("cat", "image1")
    content = server("image1").file("/srv/image/a.tar").content
    archive = tmp_path / "a.tar"
    archive.write_bytes(content)
    # Five chunks, of which the fifth is damaged, and a part of the sixth.
    there = bytearray(content[: 5 * CHUNK + 1000])
    there[4 * CHUNK + 77] ^= 1
    give(servers, "image1", f"{FOLDER}/archive.part", bytes(there))
    done = run(**archived(world, str(archive), docker_image_archive_remote_src=False))
    assert done.good, done.output
    kept = f"{4 * CHUNK / 1e6:.0f} MB were there from an earlier run"
    assert re.search(rf"image1 image: there after \d+ s, from the controller, {kept}", done.told), done.output
    assert re.search(r"image2 image: there after \d+ s, from image1", done.told), done.output
    assert ids(SAVED) == [world.image_id()] * 3
    assert left(server) == []


@pytest.mark.usefixtures("bare")
def test_an_archive_that_the_controller_does_not_have(run, world):
    done = run(**archived(world, "/nowhere/a.tar", docker_image_archive_remote_src=False))
    assert not done.good
    assert "ERROR image-archive-unreadable" in done.told
    assert "pd_image_archive" in done.told


@pytest.mark.usefixtures("bare")
def test_a_server_that_has_it_gives_it_and_old_ones_go(run, world, ids, server):
    for tag in ("v1", "v2"):
        done = run("--limit", "image3,source", converge_tag=tag)
        assert done.good, done.output
    before = world.count
    done = run(docker_image_source="none", converge_tag="v2", docker_prune_keep=0)
    assert done.good, done.output
    assert world.count == before
    assert ids(world.image("v2")) == [world.image_id("v2")] * 3
    assert ids(world.image("v1")) == ["", "", ""]
