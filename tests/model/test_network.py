"""Is the network out of reach while a stranger's files are opened, for that thread alone, and is its use reported?"""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest

import offline as suite
from glasshouse.data import network
from glasshouse.model.opening import open_anatomy, open_subject
from glasshouse.values.errors import BadInput


def with_socket(work: Callable[[socket.socket], object], *kinds: int) -> Callable[[], None]:
    def attempt() -> None:
        with socket.socket(*kinds) as opened:
            work(opened)

    return attempt


ATTEMPTS = {
    "look-up": lambda: socket.getaddrinfo("huggingface.co", 443),
    "look-up by name": lambda: socket.gethostbyname("huggingface.co"),
    "connection": with_socket(lambda opened: opened.connect(("192.0.2.1", 443))),
    "connect_ex": with_socket(lambda opened: opened.connect_ex(("192.0.2.1", 443))),
    "IPv6": with_socket(lambda opened: opened.connect(("2001:db8::1", 443)), socket.AF_INET6),
    "create_connection": lambda: socket.create_connection(("huggingface.co", 443)),
    "datagram": with_socket(lambda opened: opened.sendto(b"x", ("192.0.2.1", 53)), socket.AF_INET, socket.SOCK_DGRAM),
    "reverse look-up": lambda: socket.getnameinfo(("192.0.2.1", 443), 0),
    "hub": lambda: huggingface_hub.model_info("nobody/nothing"),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_no_way_to_connect_is_left_open(attempt):
    with network.offline(), pytest.raises(Exception, match=r"connection refused|offline mode") as refusal:
        attempt()
    assert network.attempt(refusal.value) is not None


def test_this_machine_stays_reachable():
    with network.offline(), socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
        assert socket.getaddrinfo("localhost", None)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:{}", "http://user:secret@localhost:{}/"])
def test_a_proxy_on_this_machine_is_not(monkeypatch: pytest.MonkeyPatch, proxy: str):
    with socket.create_server(("127.0.0.1", 0)) as server, network.offline():
        socket.create_connection(server.getsockname()).close()
        monkeypatch.setenv("https_proxy", proxy.format(server.getsockname()[1]))
        with pytest.raises(network.NetworkRefused):
            socket.create_connection(server.getsockname())


def test_the_ban_holds_for_threads_started_inside_and_for_no_other():
    inside, outside = threading.Event(), threading.Event()
    seen: dict[str, bool] = {}
    offline_before = bool(huggingface_hub.is_offline_mode())

    def elsewhere() -> None:
        inside.wait(10)
        seen["elsewhere"] = network.denied() or bool(huggingface_hub.is_offline_mode()) != offline_before
        outside.set()

    other = threading.Thread(target=elsewhere)
    other.start()
    with network.offline(), ThreadPoolExecutor(1) as pool:
        seen["pool"] = pool.submit(network.denied).result()
        with network.online():
            seen["lifted"] = network.denied()
        seen["here"] = network.denied()
        inside.set()
        outside.wait(10)
    other.join()
    with network.offline(download=True):
        seen["download"] = network.denied()
    assert seen == {"pool": True, "lifted": False, "here": True, "elsewhere": False, "download": False}
    assert not network.denied()


def python(code: str, folder: Path, *words: object) -> tuple[subprocess.CompletedProcess[str], str]:
    """A fresh interpreter with the suite's hook in it, and the addresses it reached for."""
    record = folder / "attempts"
    site = folder / "site"
    site.mkdir(exist_ok=True)
    suite.sitecustomize(site, record)
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "JAXTYPING"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**environment, "PYTHONPATH": path, "HF_HOME": str(folder / "hub")},
        capture_output=True, text=True, cwd=folder, check=False,
    )  # fmt: skip
    assert record.exists(), done.stderr
    return done, record.read_text()


def test_denying_for_the_process_imports_nothing_and_changes_no_environment(tmp_path: Path):
    code = """
import sys, os
before = dict(os.environ)
from glasshouse.data import network
network.deny()
assert not {"torch", "transformers", "huggingface_hub"} & set(sys.modules), "heavy"
assert dict(os.environ) == before
import socket, threading
caught = []
def attempt():
    try: socket.create_connection(("192.0.2.1", 443))
    except network.NetworkRefused as problem: caught.append(problem.address)
network.watch()
thread = threading.Thread(target=attempt); thread.start(); thread.join()
attempt()
print(len(caught))
"""
    # The suite's own hook would see these attempts first.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr


def test_the_command_line_reaches_for_nothing_when_a_name_is_not_cached(tmp_path: Path):
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    done, reached = python(code, tmp_path, "anatomy", "nobody/no-such-model", "--prove")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "add --download" in done.stderr
    assert reached == ""


# What a checkpoint can name ------------------------------------------------------------------------------------------


def edit(file: Path, **entries: object) -> None:
    settings = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(settings | entries))


@pytest.fixture
def llava(folder, tmp_path: Path) -> Path:
    """A LLaVA checkpoint to edit."""
    return shutil.copytree(folder("llava"), tmp_path / "checkpoint")


def test_a_cached_hub_name_needs_no_download_and_any_other_does(folder, tmp_path: Path, monkeypatch):
    cache = tmp_path / "hub"
    snapshot = cache / "models--somebody--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(folder("llava"), snapshot)
    (cache / "models--somebody--tiny" / "refs").mkdir()
    (cache / "models--somebody--tiny" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    assert open_subject("somebody/tiny").certificate.failures == ()
    with pytest.raises(BadInput, match=r"^nobody/no-such-model: neither a folder nor in the local cache.*--download$"):
        open_subject("nobody/no-such-model")


BACKBONES = {
    "pretrained": {"backbone": "microsoft/resnet-50", "use_pretrained_backbone": True, "use_timm_backbone": False},
    "timm": {"backbone": "resnet50", "use_pretrained_backbone": True, "use_timm_backbone": True},
}


@pytest.mark.parametrize("entries", BACKBONES.values(), ids=BACKBONES.keys())
def test_a_backbone_named_by_a_configuration_is_not_fetched(tmp_path: Path, entries: dict):
    edit(tmp_path / "config.json", model_type="detr", backbone_config=None, **entries)
    with pytest.raises(BadInput) as refusal:
        open_anatomy(tmp_path)
    assert "\n" not in str(refusal.value)


def test_attention_code_of_the_hub_is_refused(llava: Path):
    edit(llava / "config.json", attn_implementation="kernels-community/flash-attn2")
    with pytest.raises(BadInput, match="attn_implementation is kernels-community/flash-attn2, code from the hub"):
        open_subject(llava)


def test_image_processors_and_templates_come_from_the_folder_alone(llava: Path):
    """Their look-ups fall back to hub names in the configuration; without files there is only a refusal."""
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (llava / name).unlink()
    edit(llava / "config.json", _name_or_path="somebody/tiny")
    edit(llava / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", name_or_path="somebody/tiny")
    with pytest.raises(BadInput):
        open_subject(llava)


@pytest.fixture(scope="module")
def stored_lora(stored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that names a base on the hub."""
    from peft import LoraConfig, get_peft_model

    place = tmp_path_factory.mktemp("lora")
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(open_subject(stored("llava")).model, config).save_pretrained(place)
    edit(place / "adapter_config.json", base_model_name_or_path="somebody/base-with-a-beacon")
    return place


@pytest.fixture
def lora(stored_lora: Path, tmp_path: Path) -> Path:
    """A copy of the adapter, to edit."""
    return shutil.copytree(stored_lora, tmp_path / "lora")


def test_the_base_that_an_adapter_names_is_not_asked_for(stored, stored_lora: Path):
    subject = open_subject(stored("llava"), adapter=stored_lora)
    assert subject.certificate.failures == ()


@pytest.mark.parametrize(
    ("entries", "fix"),
    [
        ({"peft_type": "XLORA", "adapters": {"0": "somebody/lora"}, "hidden_size": 64}, "X-LoRA.*loads further"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron_config makes peft import a module"),
        ({"peft_type": "NONSENSE"}, "peft_type is NONSENSE, and only LORA is merged"),
        ({"r": 10**9}, "rank r is 1,000,000,000, and the weights have rank 2 at most"),
        ({"target_modules": 5}, "target_modules must be a list of names"),
        ({"target_modules": ["nowhere"]}, "does not fit the model"),
    ],
    ids=str,
)
def test_adapters_that_load_more_or_fit_nothing_are_refused(stored, lora: Path, entries: dict, fix: str):
    edit(lora / "adapter_config.json", **entries)
    with pytest.raises(BadInput, match=fix) as refusal:
        open_subject(stored("llava"), adapter=lora)
    assert "\n" not in str(refusal.value)


def test_an_attempt_is_told_with_the_fix():
    from glasshouse.data.strangers import strangers_files

    with (
        network.offline(),
        pytest.raises(BadInput, match=r"^model: would use the network \(https://huggingface\.co/.*\); add --download"),
        strangers_files("model", "cannot be read", "fix it"),
    ):
        huggingface_hub.hf_hub_download("somebody/lora", "adapter_config.json", force_download=True)
