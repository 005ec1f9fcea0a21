"""What the plug-in adds to smp, and smp's own architectures on the cut networks."""

import subprocess
import sys

import pytest
import segmentation_models_pytorch as smp
import torch

import isic_smp.plugin
from isic_smp.errors import UserError
from isic_smp.models.encoder import TruncatedMobileNet
from isic_smp.models.families import all_encoder_names

S4 = "trunc-mobilenetv2_035-s4"  # strides 2, 4, 8, 16
S6 = "trunc-mobilenetv2_035-s6"  # strides 2, 4, 8, 16, 32

FOUR = {"encoder_depth": 4, "decoder_channels": (16, 16, 8, 8)}
ARCHITECTURES = [
    ("Unet", S4, FOUR),
    ("Unet", S6, {}),
    ("UnetPlusPlus", S4, FOUR),
    ("MAnet", S4, FOUR),
    ("Linknet", S4, {"encoder_depth": 4}),
    ("FPN", S6, {}),
    ("FPN", S4, {"encoder_depth": 4, "upsampling": 2}),
    ("PSPNet", "trunc-mobilenetv2_035-s2", {}),
    ("PSPNet", S4, {"encoder_depth": 4, "upsampling": 16}),
    ("PAN", S6, {}),
    ("PAN", S4, {"encoder_depth": 4}),
    ("DeepLabV3", S6, {}),
    ("DeepLabV3", S4, {"encoder_depth": 4, "encoder_output_stride": 16}),
    ("DeepLabV3Plus", S6, {}),
    ("DeepLabV3Plus", S4, {"encoder_depth": 4}),
    ("UPerNet", S6, {}),
    ("UPerNet", S4 + "-same", {"encoder_depth": 4}),
    ("Segformer", S4, {"encoder_depth": 4}),
]


def run(script):
    """The lines that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_bare_package_is_light():
    script = "import sys, isic_smp; dir(isic_smp); print('torch' in sys.modules, 'timm' in sys.modules)"
    assert run(script) == ["False", "False"]


def test_a_lazy_name_registers_and_a_folder_is_loaded_without_mlflow():
    script = """
import sys
import isic_smp
model = isic_smp.create_model("upconvnet", encoder_name="trunc-mobilenetv2_035-s1", encoder_weights=None)
import segmentation_models_pytorch as smp
print("trunc-mobilenetv2_035-s1" in smp.encoders.encoders, type(model) is isic_smp.UpConvNet is smp.UpConvNet)
isic_smp.load()
print("mlflow" in sys.modules)
"""
    assert run(script) == ["True", "True", "False"]


def test_registering_twice_changes_nothing():
    def state():
        return dict(smp.encoders.encoders), dict(smp.MODEL_ARCHITECTURES_MAPPING), dict(vars(smp))

    before = state()
    isic_smp.plugin.register()
    assert state() == before
    assert set(all_encoder_names()) < set(smp.encoders.get_encoder_names())


@pytest.mark.oldest
@pytest.mark.parametrize(("architecture", "name", "settings"), ARCHITECTURES)
def test_smps_architectures_train_on_a_cut(architecture, name, settings):
    torch.manual_seed(0)
    model = getattr(smp, architecture)(name, encoder_weights=None, **settings)
    assert isinstance(model.encoder, TruncatedMobileNet)
    x = torch.randn(2, 3, 128, 128)  # what PAN needs
    y = model(x)
    assert y.shape == (2, 1, 128, 128)
    y.square().mean().backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


def test_smps_default_depth_on_a_shallower_cut_says_what_to_do():
    for architecture in (smp.Unet, smp.Linknet, smp.FPN, smp.UPerNet):
        with pytest.raises(UserError, match=r"depth 1 to 4 .*, got 5: pass encoder_depth=4"):
            architecture(S4, encoder_weights=None)


def test_smp_knows_where_the_imagenet_weights_are():
    entry = smp.encoders.encoders["trunc-mobilenetv2_100-s4"]
    assert entry["pretrained_settings"]["imagenet"]["repo_id"] == "timm/mobilenetv2_100.ra_in1k"
    for untrained in ("trunc-mobilenetv2_035-s4", "trunc-mobilenetv2_100-s4-same"):
        with pytest.raises(KeyError, match="Wrong pretrained weights"):
            smp.encoders.get_encoder(untrained, depth=4, weights="imagenet")


def test_smps_own_download_fits_the_encoder(tmp_path, monkeypatch):
    """smp fetches config.json and model.safetensors, and loads the whole network's state dict."""
    import timm
    from safetensors.torch import save_file

    cached = tmp_path / "models--timm--mobilenetv3_small_050.lamb_in1k"
    (cached / "snapshots/abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")
    (cached / "snapshots/abc/config.json").write_text("{}")
    state_dict = timm.create_model("mobilenetv3_small_050", pretrained=False).state_dict()
    save_file(state_dict, cached / "snapshots/abc/model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = smp.Linknet("trunc-mobilenetv3_small_050-s1", encoder_depth=3, in_channels=1)
    stem = state_dict["conv_stem.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(model.encoder.conv_stem.weight, stem)
    assert torch.equal(model.encoder.bn1.weight, state_dict["bn1.weight"])


@pytest.mark.oldest
def test_smp_saves_and_loads_its_own_architectures_with_our_encoder(tmp_path):
    model = smp.Unet(S4, encoder_weights=None, **FOUR).eval()
    model.save_pretrained(tmp_path)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(smp.from_pretrained(tmp_path).eval()(x), model(x))
