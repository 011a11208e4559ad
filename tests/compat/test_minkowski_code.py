"""Networks as people write them for MinkowskiEngine, found by its name: they run, train and give what they should."""

import itertools
import sys

import hepops.compat.minkowski
import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

FOUND = ("MinkowskiEngine", "MinkowskiEngineBackend", "sparse_matrix_functions")


@pytest.fixture
def ME():
    before = dict(sys.modules)
    hepops.compat.minkowski.install()
    import MinkowskiEngine

    yield MinkowskiEngine
    for name in set(sys.modules) - set(before):
        if name.startswith(("Minkowski", "sparse_matrix_functions")):
            del sys.modules[name]


def cloud(n, D=3, extent=16, seed=0, batch=2):
    g = np.random.default_rng(seed)
    return [np.unique(g.integers(0, extent, (n, D)), axis=0) for _ in range(batch)]


def train(step, parameters, steps=8, rate=2e-2):
    optimizer, losses = torch.optim.Adam(parameters, lr=rate), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = step()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(np.isfinite(losses)) and losses[-1] < 0.9 * losses[0], losses
    return losses


def unet(ME, in_channels, out_channels, D):
    class UNet(ME.MinkowskiNetwork):
        def __init__(self):
            super().__init__(D)
            self.block1 = self.block(in_channels, 8)
            self.block2 = self.block(8, 16, 2)
            self.block3 = self.block(16, 32, 2)
            self.up2 = self.block(32, 16, 2, ME.MinkowskiConvolutionTranspose)
            self.up1 = self.block(32, 8, 2, ME.MinkowskiConvolutionTranspose)
            self.head = ME.MinkowskiConvolution(16, out_channels, kernel_size=1, bias=True, dimension=D)

        def block(self, i, o, stride=1, kind=ME.MinkowskiConvolution):
            return nn.Sequential(
                kind(in_channels=i, out_channels=o, kernel_size=3, stride=stride, dimension=D), ME.MinkowskiBatchNorm(o)
            )

        def forward(self, x):
            import MinkowskiEngine.MinkowskiFunctional as MF

            s1 = MF.relu(self.block1(x))
            s2 = MF.relu(self.block2(s1))
            out = self.up2(MF.relu(self.block3(s2)))
            out = self.up1(ME.cat(MF.relu(out), s2))
            return self.head(ME.cat(MF.relu(out), s1))

    return UNet()


@pytest.mark.parametrize("D", [2, 3])
def test_a_unet_learns_to_segment(ME, D):
    torch.manual_seed(0)
    coords = cloud(200, D)
    labels = [torch.from_numpy((c[:, 0] > c[:, 1]).astype(np.int64)) for c in coords]
    c, f, y = ME.utils.sparse_collate(coords, [x / 16 for x in coords], labels)
    net, criterion = unet(ME, D, 2, D), nn.CrossEntropyLoss()

    def step():
        out = net(ME.SparseTensor(f.float(), coordinates=c))
        assert torch.equal(out.C, c)
        return criterion(out.F, y)

    train(step, net.parameters())


def test_a_mink_unet_of_blocks(ME):
    from MinkowskiEngine.modules.resnet_block import BasicBlock

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv0 = ME.MinkowskiConvolution(3, 8, kernel_size=5, dimension=3)
            self.bn0 = ME.MinkowskiBatchNorm(8)
            self.down = ME.MinkowskiConvolution(8, 8, kernel_size=2, stride=2, dimension=3)
            skip = nn.Sequential(ME.MinkowskiConvolution(8, 16, kernel_size=1, dimension=3), ME.MinkowskiBatchNorm(16))
            self.block = nn.Sequential(BasicBlock(8, 16, downsample=skip, dimension=3), BasicBlock(16, 16, dimension=3))
            self.up = ME.MinkowskiConvolutionTranspose(16, 8, kernel_size=2, stride=2, dimension=3)
            self.final = ME.MinkowskiConvolution(16, 5, kernel_size=1, bias=True, dimension=3)
            self.relu = ME.MinkowskiReLU(inplace=True)
            for m in self.modules():
                if isinstance(m, (ME.MinkowskiConvolution, ME.MinkowskiConvolutionTranspose)):
                    ME.utils.kaiming_normal_(m.kernel, mode="fan_out", nonlinearity="relu")
                if isinstance(m, ME.MinkowskiBatchNorm):
                    nn.init.constant_(m.bn.weight, 1)

        def forward(self, x):
            out_p1 = self.relu(self.bn0(self.conv0(x)))
            out = self.block(self.relu(self.down(out_p1)))
            return self.final(ME.cat((self.relu(self.up(out)), out_p1)))

    net = Net()
    coords = cloud(150)
    c, f = ME.utils.sparse_collate(
        coords, [np.random.default_rng(1).random((len(x), 3)).astype(np.float32) for x in coords]
    )
    target = torch.randint(0, 5, (len(c),), generator=torch.Generator().manual_seed(0))
    train(lambda: nn.functional.cross_entropy(net(ME.SparseTensor(f, c)).F, target), net.parameters())
    clone = Net()
    clone.load_state_dict(net.state_dict())
    x = ME.SparseTensor(f, c)
    assert torch.equal(clone.eval()(x).F, net.eval()(x).F)


class Decoder(nn.Module):
    """Generative layers, a classifier that says which voxels stay, and pruning."""

    def __init__(self, ME, channels, D=3):
        super().__init__()
        self.ME = ME
        self.blocks, self.heads = nn.ModuleList(), nn.ModuleList()
        for i, o in itertools.pairwise(channels):
            self.blocks.append(
                nn.Sequential(
                    ME.MinkowskiGenerativeConvolutionTranspose(i, o, kernel_size=2, stride=2, dimension=D),
                    ME.MinkowskiBatchNorm(o),
                    ME.MinkowskiELU(),
                    ME.MinkowskiConvolution(o, o, kernel_size=3, dimension=D),
                    ME.MinkowskiBatchNorm(o),
                    ME.MinkowskiELU(),
                )
            )
            self.heads.append(ME.MinkowskiConvolution(o, 1, kernel_size=1, bias=True, dimension=D))
        self.pruning = ME.MinkowskiPruning()

    @torch.no_grad()
    def get_target(self, out, target_key, kernel_size=1):
        target = torch.zeros(len(out), dtype=torch.bool)
        cm = out.coordinate_manager
        strided = cm.stride(target_key, out.tensor_stride[0])
        for _, pairs in cm.kernel_map(out.coordinate_map_key, strided, kernel_size=kernel_size, region_type=1).items():
            target[pairs[0].long()] = 1
        return target

    def forward(self, z, target_key, encoded=()):
        scores, targets = [], []
        for block, head in zip(self.blocks, self.heads, strict=True):
            z = block(z)
            for skip in encoded:
                if skip.tensor_stride == z.tensor_stride:
                    z = z + skip
            score = head(z)
            target = self.get_target(z, target_key)
            scores.append(score)
            targets.append(target)
            keep = (score.F > 0).squeeze(1)
            if self.training:
                keep += target
            z = self.pruning(z, keep)
        return scores, targets, z


def loss_of(scores, targets):
    terms = [
        nn.functional.binary_cross_entropy_with_logits(s.F.squeeze(1), t.float())
        for s, t in zip(scores, targets, strict=True)
    ]
    return sum(terms) / len(terms)


def test_reconstruction_from_a_code(ME):
    torch.manual_seed(0)
    shapes = cloud(60, extent=16)
    net = Decoder(ME, [2, 16, 16, 8, 8])

    def run():
        start = torch.zeros(2, 4, dtype=torch.int32)
        start[:, 0] = torch.arange(2)
        z = ME.SparseTensor(features=torch.eye(2), coordinates=start, tensor_stride=16)
        key, _ = z.coordinate_manager.insert_and_map(ME.utils.batched_coordinates(shapes), string_id="target")
        assert key.get_key() == ([1, 1, 1], "target")
        return net(z, key)

    scores, targets, out = run()
    assert [s.tensor_stride[0] for s in scores] == [8, 4, 2, 1]
    for score, target in zip(scores, targets, strict=True):  # every cell that holds the shape is found, no other
        s = score.tensor_stride[0]
        cells = {(b, *(c // s * s)) for b, shape in enumerate(shapes) for c in map(tuple, shape) for c in [np.array(c)]}
        cells = {tuple(int(v) for v in c) for c in cells}
        assert {tuple(c) for c in score.C[target].tolist()} == cells
    assert {tuple(c) for c in ME.utils.batched_coordinates(shapes).tolist()} <= {tuple(c) for c in out.C.tolist()}
    train(lambda: loss_of(*run()[:2]), net.parameters(), steps=10)


def test_completion_of_a_part(ME):
    torch.manual_seed(0)
    shapes = cloud(80, extent=16)
    parts = [c[c[:, 0] < 8] for c in shapes]

    class Completion(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [1, 8, 16, 16]
            self.down = nn.ModuleList(
                nn.Sequential(
                    ME.MinkowskiConvolution(i, o, kernel_size=2, stride=2, dimension=3),
                    ME.MinkowskiBatchNorm(o),
                    ME.MinkowskiELU(),
                )
                for i, o in itertools.pairwise(widths)
            )
            self.decoder = Decoder(ME, [16, 16, 8, 8])

        def forward(self, x, key):
            skips = []
            for block in self.down:
                x = block(x)
                skips.append(x)
            return self.decoder(x, key, skips[:-1])

    net = Completion()

    def run():
        c = ME.utils.batched_coordinates(parts)
        x = ME.SparseTensor(torch.ones(len(c), 1), coordinates=c)
        key, _ = x.coordinate_manager.insert_and_map(ME.utils.batched_coordinates(shapes), string_id="target")
        return net(x, key)

    train(lambda: loss_of(*run()[:2]), net.parameters(), steps=8)
    net.eval()
    out = run()[2]
    assert [len(f) for f in out.decomposed_features] and out.tensor_stride == [1, 1, 1]


def test_classification_of_point_clouds(ME):
    """mlp on points, voxels, slices of several levels back to the points, voxels again, global pools."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    points = [torch.rand(80, 3, generator=g) * (1.0 if i % 2 else 0.4) for i in range(4)]

    def block(i, o, stride=None):
        layer = ME.MinkowskiLinear(i, o, bias=False)
        if stride is not None:
            layer = ME.MinkowskiConvolution(i, o, kernel_size=3, stride=stride, dimension=3)
        return nn.Sequential(layer, ME.MinkowskiBatchNorm(o), ME.MinkowskiLeakyReLU())

    class Net(ME.MinkowskiNetwork):
        def __init__(self):
            super().__init__(3)
            self.mlp1, self.conv1, self.conv2 = block(3, 8), block(8, 8, 1), block(8, 16, 2)
            self.conv5 = block(24, 16, 2)
            self.pool = ME.MinkowskiMaxPooling(kernel_size=3, stride=2, dimension=3)
            self.most, self.mean = ME.MinkowskiGlobalMaxPooling(), ME.MinkowskiGlobalAvgPooling()
            self.final = nn.Sequential(block(32, 16), ME.MinkowskiDropout(0.1), ME.MinkowskiLinear(16, 2))

        def forward(self, x):
            x = self.mlp1(x)
            y1 = self.pool(self.conv1(x.sparse()))
            y2 = self.pool(self.conv2(y1))
            x = ME.cat(y1.slice(x), y2.slice(x))
            y = self.conv5(x.sparse())
            return self.final(ME.cat(self.most(y), self.mean(y))).F

    c = ME.utils.batched_coordinates([p / 0.05 for p in points], dtype=torch.float32)
    f = torch.cat(points)
    net = Net()
    labels = torch.tensor([0, 1, 0, 1])
    train(
        lambda: nn.functional.cross_entropy(net(ME.TensorField(coordinates=c, features=f)), labels),
        net.parameters(),
        20,
    )


def test_infill_of_a_detector(ME):
    """Kernel 4 at stride 2 in generative layers, a field as input, kernel maps asked of the manager."""
    torch.manual_seed(0)
    c = torch.cat([torch.randint(0, 2, (120, 1)), torch.randint(0, 24, (120, 3))], 1).float()
    x = ME.TensorField(torch.rand(120, 1), c, quantization_mode=ME.SparseTensorQuantizationMode.UNWEIGHTED_SUM).sparse()
    down = ME.MinkowskiConvolution(1, 4, kernel_size=4, stride=2, dimension=3)
    up = ME.MinkowskiGenerativeConvolutionTranspose(4, 4, kernel_size=4, stride=2, dimension=3)
    head = ME.MinkowskiConvolution(4, 1, kernel_size=1, bias=True, dimension=3)
    y = down(x)
    z = up(y)
    reached = {
        (b, *(v + o for v, o in zip(c, offset, strict=True)))
        for b, *c in y.C.tolist()
        for offset in np.ndindex(4, 4, 4)
    }
    assert {tuple(r) for r in z.C.tolist()} == {tuple(int(v) for v in r) for r in reached}
    cm = z.coordinate_manager
    overlap = cm.kernel_map(x.coordinate_map_key, z.coordinate_map_key, stride=1, kernel_size=1)[0].long()
    assert torch.equal(x.C[overlap[0]], z.C[overlap[1]]) and len(overlap[0]) > 0
    target = torch.zeros(len(z), 1).index_copy(0, overlap[1], x.F[overlap[0]])
    parameters = [*down.parameters(), *up.parameters(), *head.parameters()]
    train(lambda: (head(up(down(x))).F - target).square().mean(), parameters, 20)
    pruned = ME.MinkowskiPruning()(z, (target != 0).squeeze(1))
    assert len(pruned) == int((target != 0).sum())
    assert_close(ME.MinkowskiUnion()(pruned, z).F.sum(0), pruned.F.sum(0) + z.F.sum(0))


def test_reconstruction_chains_of_particle_physics(ME):
    """UResNet encoder-decoder on `data` rows [batch, x, y, z, value], clusters as batch ids, points of interest."""
    import MinkowskiFunctional as MF

    torch.manual_seed(0)
    voxels = [c for c in cloud(150, batch=3, extent=24)]
    rows = np.concatenate(
        [np.insert(np.c_[c, np.random.default_rng(b).random(len(c))], 0, b, 1) for b, c in enumerate(voxels)]
    )
    data = torch.from_numpy(rows).float()

    class Residual(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.short = ME.MinkowskiLinear(i, o) if i != o else nn.Identity()
            self.body = nn.Sequential(
                ME.MinkowskiBatchNorm(i, eps=1e-4, momentum=0.01),
                ME.MinkowskiLeakyReLU(negative_slope=0.33),
                ME.MinkowskiConvolution(i, o, kernel_size=3, stride=1, dimension=3, bias=False),
                ME.MinkowskiBatchNorm(o, eps=1e-4, momentum=0.01),
                ME.MinkowskiLeakyReLU(negative_slope=0.33),
                ME.MinkowskiConvolution(o, o, kernel_size=3, stride=1, dimension=3, bias=False),
            )

        def forward(self, x):
            out = self.body(x)
            out += self.short(x)
            return out

    class Net(nn.Module):
        def __init__(self, filters=8, depth=3):
            super().__init__()
            widths = [filters * (i + 1) for i in range(depth)]
            self.input = ME.MinkowskiConvolution(1, filters, kernel_size=3, stride=1, dimension=3)
            self.encode = nn.ModuleList(Residual(w, w) for w in widths)
            self.down = nn.ModuleList(
                ME.MinkowskiConvolution(a, b, kernel_size=2, stride=2, dimension=3)
                for a, b in itertools.pairwise(widths)
            )
            self.up = nn.ModuleList(
                ME.MinkowskiConvolutionTranspose(b, a, kernel_size=2, stride=2, dimension=3)
                for a, b in itertools.pairwise(widths)
            )
            self.decode = nn.ModuleList(Residual(2 * w, w) for w in widths[:-1])
            self.output = ME.MinkowskiLinear(filters, 5)

        def forward(self, data):
            x = ME.SparseTensor(coordinates=data[:, :4].int(), features=data[:, 4:].float())
            x, skips = self.input(x), []
            for i, block in enumerate(self.encode):
                x = block(x)
                skips.append(x)
                if i < len(self.down):
                    x = self.down[i](x)
            for i in reversed(range(len(self.up))):
                x = self.decode[i](ME.cat(skips[i], self.up[i](x)))
            return self.output(x), skips[-1]

    net = Net()
    truth = (data[:, 4] * 5).long().clamp(max=4)
    shuffle = torch.randperm(len(data))

    def step():
        out, _ = net(data)
        return nn.functional.cross_entropy(out.F, truth)

    train(step, net.parameters(), 8)
    net.eval()
    assert_close(net(data[shuffle])[0].F, net(data)[0].F[shuffle], rtol=1e-4, atol=1e-5)  # float32, other order of sums
    out, deepest = net(data)
    assert MF.softmax(out, dim=1).F.sum(1).allclose(torch.ones(len(out)))
    clusters = data.clone()
    clusters[:, 0] = torch.arange(len(data)) % 1300
    pooled = ME.MinkowskiGlobalAvgPooling()(ME.SparseTensor(data[:, 4:], clusters[:, :4].int()))
    ids = clusters[:, 0].long().unique()
    mean = torch.stack([data[clusters[:, 0] == i, 4].mean() for i in ids])
    assert torch.equal(pooled.C[:, 0].long(), ids)
    assert_close(pooled.F[:, 0], mean)
    attention = MF.sigmoid(ME.MinkowskiLinear(deepest.shape[1], 1)(deepest))
    assert len(attention * deepest) == len(deepest)


def test_squeeze_and_excitation(ME):
    from MinkowskiEngine.modules.senet_block import SEBasicBlock

    coords = cloud(60)
    c, f = ME.utils.sparse_collate(
        coords, [np.random.default_rng(1).random((len(x), 8)).astype(np.float32) for x in coords]
    )
    net = nn.Sequential(SEBasicBlock(8, 8, reduction=4, D=3), ME.MinkowskiGlobalPooling(), ME.MinkowskiToFeature())
    target = torch.tensor([[1.0] * 8, [0.0] * 8])
    train(lambda: (net(ME.SparseTensor(f, c)) - target).square().mean(), net.parameters(), 20)


def test_a_loader_of_batches(ME):
    from MinkowskiEngine.utils import batch_sparse_collate, sparse_quantize

    class Points(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            g = np.random.default_rng(i)
            points = g.random((50, 3)) * 4 - 2
            return sparse_quantize(points, g.random((50, 2)), labels=g.integers(0, 3, 50), quantization_size=0.5)

    loader = torch.utils.data.DataLoader(Points(), batch_size=3, collate_fn=batch_sparse_collate)
    for c, f, labels in loader:
        assert c[:, 0].unique().tolist() == [0, 1, 2] and len(c) == len(f) == len(labels)
        x = ME.SparseTensor(f, c)
        assert torch.equal(x.unique_index, torch.arange(len(c)))  # quantized already
