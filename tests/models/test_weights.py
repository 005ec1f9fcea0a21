"""Weights from files, the hub, or none; what does not fit is refused."""

import contextlib
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import adapt_input_conv

import isic_smp.plugin  # noqa: F401
from isic_smp.errors import UserError
from isic_smp.models import weights
from isic_smp.models.encoder import TruncatedMobileNet
from isic_smp.models.upconvnet import UpConvNet
from isic_smp.models.weights import load_encoder_weights, resolve_encoder_weights
from isic_smp.models.weights_file import sha256_of

SMALL = "mobilenetv3_small_050"


def write(folder, state_dict=None, **changes):
    """A weights file of a small network, and its description with `changes` (None: leave the entry out)."""
    path = folder / "small.safetensors"
    save_file(state_dict or timm.create_model(SMALL, pretrained=False).state_dict(), path)
    about = {
        "timm_model": SMALL,
        "create_model_kwargs": {"pad_type": "same"},
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "sha256": sha256_of(path),
        **changes,
    }
    about = {name: value for name, value in about.items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(about))
    return path


@pytest.fixture
def small(tmp_path):
    return write(tmp_path)


def test_a_file_brings_its_normalisation_and_padding(small):
    model = UpConvNet("trunc-mobilenetv3_small_050-s1", encoder_weights=str(small))
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert model.config["encoder_name"] == "trunc-mobilenetv3_small_050-s1-same"
    assert model.config["encoder_weights"] is None
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, load_file(small)[key])


@pytest.mark.parametrize("kwargs", [{}, {"pad_type": ""}, None])
def test_a_file_without_pad_type_is_padded_as_timm_does(tmp_path, kwargs):
    model = UpConvNet(
        "trunc-mobilenetv3_small_050-s1", encoder_weights=write(tmp_path, create_model_kwargs=kwargs)
    )
    assert model.config["encoder_name"] == "trunc-mobilenetv3_small_050-s1"


def test_the_users_own_normalisation_wins(small):
    model = UpConvNet("trunc-mobilenetv3_small_050-s1", encoder_weights=small, mean=[0, 0, 0], std=(1, 1, 1))
    assert (model.mean, model.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_adapt_the_stem_and_the_normalisation(small, channels):
    model = UpConvNet("trunc-mobilenetv3_small_050-s1", encoder_weights=small, in_channels=channels)
    expected = adapt_input_conv(channels, load_file(small)["conv_stem.weight"])
    assert torch.equal(model.encoder.conv_stem.weight, expected)
    assert model.mean == pytest.approx({1: (0.2,), 4: (0.1, 0.2, 0.3, 0.1)}[channels])


def test_into_smps_own_architecture(small):
    def unet(name):
        return smp.Unet(name, encoder_weights=None, encoder_depth=3, decoder_channels=(8, 8, 8))

    with pytest.raises(UserError, match="encoder_name='trunc-mobilenetv3_small_050-s1-same'"):
        load_encoder_weights(unet("trunc-mobilenetv3_small_050-s1"), small)
    model = unet("trunc-mobilenetv3_small_050-s1-same")
    weights = load_encoder_weights(model, small)
    assert weights.mean == (0.1, 0.2, 0.3)
    assert torch.equal(model.encoder.bn1.weight, load_file(small)["bn1.weight"])
    assert torch.equal(model.encoder.conv_stem.weight, load_file(small)["conv_stem.weight"])


def test_into_an_existing_upconvnet_and_a_bare_encoder(small):
    model = UpConvNet("trunc-mobilenetv3_small_050-s1-same", encoder_weights="none")
    load_encoder_weights(model, small)
    assert model.mean == (0.1, 0.2, 0.3)
    load_encoder_weights(TruncatedMobileNet(timm_name=SMALL, cut=0, same_padding=True), small)
    with pytest.raises(UserError, match="expected a truncated MobileNet"):
        load_encoder_weights(torch.nn.Linear(1, 1), small)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"timm_model": "mobilenetv3_small_100"}, "weights of mobilenetv3_small_100"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"sha256": None}, "lacks sha256"),
        ({"mean": None, "std": None}, "lacks mean, std"),
        ({"mean": [0.5]}, "three numbers"),
        ({"std": [0.5, 0, 0.5]}, "above 0"),
        ({"create_model_kwargs": {"bn_eps": 1e-3}}, "bn_eps"),
    ],
)
def test_a_description_that_does_not_fit(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        resolve_encoder_weights(str(write(tmp_path, **changes)), SMALL)


def test_files_that_are_not_what_they_should_be(tmp_path, small):
    for name, says in [
        ("a.pth", "refused"),
        ("nowhere.safetensors", "no encoder weights"),
        ("imagnet", "imagenet"),
    ]:
        with pytest.raises(UserError, match=says):
            resolve_encoder_weights(str(tmp_path / name), SMALL)
    with pytest.raises(UserError, match=r"needs timm's own padding.*use trunc-mobilenetv3_small_050-s1$"):
        UpConvNet(
            "trunc-mobilenetv3_small_050-s1-same", encoder_weights=write(tmp_path, create_model_kwargs={})
        )
    small.write_bytes(b"not safetensors at all")
    with pytest.raises(UserError, match="SHA-256"):
        resolve_encoder_weights(str(small), SMALL)
    about = json.loads(small.with_suffix(".json").read_text())
    small.with_suffix(".json").write_text(json.dumps({**about, "sha256": sha256_of(small)}))
    with pytest.raises(UserError, match="no safetensors file"):
        resolve_encoder_weights(str(small), SMALL)
    small.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"no small\.json"):
        resolve_encoder_weights(str(small), SMALL)


def test_weights_with_other_keys_are_refused(tmp_path):
    state_dict = timm.create_model(SMALL, pretrained=False).state_dict()
    state_dict["conv_stem.wait"] = state_dict.pop("conv_stem.weight")
    with pytest.raises(UserError, match=r"does not fit trunc-mobilenetv3_small_050-s1-same.*conv_stem"):
        UpConvNet("trunc-mobilenetv3_small_050-s1", encoder_weights=write(tmp_path, state_dict))


def test_a_stem_of_no_picture_is_refused(tmp_path):
    state_dict = timm.create_model(SMALL, pretrained=False).state_dict()
    state_dict["conv_stem.weight"] = torch.rand(16, 5, 3, 3)
    with pytest.raises(UserError, match=r"does not fit trunc-mobilenetv3_small_050-s1-same"):
        UpConvNet(
            "trunc-mobilenetv3_small_050-s1", encoder_weights=write(tmp_path, state_dict), in_channels=1
        )


def test_a_description_nested_without_end_is_refused(small):
    small.with_suffix(".json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"cannot read small\.json \(maximum recursion"):
        resolve_encoder_weights(str(small), SMALL)


def test_without_weights_the_normalisation_is_timms():
    weights = resolve_encoder_weights(None, "mobilenetv2_100")
    assert weights.state_dict is None
    assert weights.mean == (0.485, 0.456, 0.406)
    assert resolve_encoder_weights("none", "mobilenetv1_100").mean == (0.5, 0.5, 0.5)


def test_a_network_that_timm_has_not_trained():
    with pytest.raises(UserError, match="timm has no imagenet weights for mobilenetv2_035"):
        resolve_encoder_weights("imagenet", "mobilenetv2_035")


def test_weights_in_the_hubs_cache_need_no_network(tmp_path, monkeypatch):
    folder = tmp_path / "models--timm--mobilenetv3_small_050.lamb_in1k"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    state_dict = timm.create_model(SMALL, pretrained=False).state_dict()
    save_file(state_dict, folder / "snapshots/abc/model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    weights = resolve_encoder_weights("imagenet", SMALL)
    assert torch.equal(weights.state_dict["conv_stem.weight"], state_dict["conv_stem.weight"])
    assert (weights.mean, weights.same_padding) == ((0.485, 0.456, 0.406), False)
    assert weights.source == "timm/mobilenetv3_small_050.lamb_in1k"


def test_off_line_the_choices_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=r"not in its cache: .* imagenet, isic2016, none, or a \.safetensors file"
    ):
        resolve_encoder_weights("imagenet", "mobilenetv2_100")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Starts a hub that cannot serve, which the hub's client takes for the real one; requests for files come back.

    It answers 503; where it is `silent`, long after the client should have given up.
    """
    over, servers = threading.Event(), []

    def start(silent):
        asked = queue.Queue()

        class Unavailable(BaseHTTPRequestHandler):
            def do_GET(self):
                if "/resolve/" in self.path:  # the client asks for more than files
                    asked.put((self.command, self.path))
                if silent:
                    over.wait(5)
                with contextlib.suppress(ConnectionError):  # nobody waits any more
                    self.send_error(503)

            do_HEAD = do_GET

            def log_message(self, *_): ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Unavailable))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{servers[-1].server_port}"
        constants = {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path),
            "ENDPOINT": endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        }
        for name, value in constants.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        return asked

    yield start
    over.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("silent", [False, True])
def test_a_hub_that_cannot_serve_is_asked_once(hub, monkeypatch, silent):
    """The hub's own client would go on trying for half a minute."""
    asked = hub(silent)
    if silent:
        monkeypatch.setattr(weights, "_HUB_SECONDS", 0.2)
    why = "Timeout" if silent else "Error"
    with pytest.raises(UserError, match=rf"weights timm/mobilenetv2_100\.ra_in1k from the hub \(\w*{why}\)"):
        resolve_encoder_weights("imagenet", "mobilenetv2_100")
    file = "/timm/mobilenetv2_100.ra_in1k/resolve/main/model.safetensors"
    assert asked.get(timeout=60) == ("HEAD", file)
    assert asked.empty()


@pytest.mark.parametrize(
    ("timm_name", "file"),
    [
        ("mobilenetv1_100", "mobilenetv1_100.tfslim_in1k"),
        ("mobilenetv2_100", "mobilenetv2_100.keras160_in1k"),
        ("tf_mobilenetv3_small_100", "tf_mobilenetv3_small_100.dequant_in1k"),
    ],
)
def test_real_files(weights_dir, timm_name, file):
    model = UpConvNet(f"trunc-{timm_name}-s2", encoder_weights=weights_dir / f"{file}.safetensors").eval()
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    padding = {} if timm_name.startswith("tf_") else {"pad_type": "same"}
    whole = timm.create_model(timm_name, pretrained=False, **padding).eval()
    whole.load_state_dict(load_file(weights_dir / f"{file}.safetensors"), strict=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.blocks[:3](whole.bn1(whole.conv_stem(x)))
        torch.testing.assert_close(model.encoder(x)[-1], expected)
