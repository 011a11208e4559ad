"""Models whose posteriors are known: what inference is tested against."""

import torch
from hepops.flows.inference import Normal, Posterior, noise


class Linear:
    """x = theta A + S n, normal priors: the posterior is normal, and its covariance does not depend on x."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.A = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        self.S = torch.tensor([0.3, 0.5, 0.4, 0.6], dtype=torch.float64)
        self.mu, self.sigma = torch.tensor([0.0, 1.0, -1.0]).double(), torch.tensor([1.0, 0.5, 2.0]).double()
        self.prior = Normal(self.mu, self.sigma, ["a", "b", "c"])

    def __call__(self, theta, seeds):
        return theta @ self.A + self.S * noise(seeds, 4)

    def covariance(self, observations=1):
        return torch.linalg.inv(torch.diag(self.sigma**-2) + observations * self.A @ torch.diag(self.S**-2) @ self.A.T)

    def mean(self, x, observations=1):
        """x: one observation, or the sum of several."""
        return (x @ torch.diag(self.S**-2) @ self.A.T + self.mu / self.sigma**2) @ self.covariance(observations)

    def log_likelihood(self, x, theta):
        residual = (x - theta @ self.A) / self.S
        return -0.5 * residual.square().sum(-1)


class Exact(Posterior):
    """The posterior of `Linear`, its widths multiplied and its mean moved by a part of them, if asked."""

    def __init__(self, model, scale=1.0, bias=0.0):
        super().__init__()
        self.model, self.prior, self.data_shape = model, model.prior, torch.Size([4])
        self.normal = Normal([0.0] * 3, model.covariance() * scale**2)
        self.shift = bias * model.covariance().diagonal().sqrt()

    def sample(self, n, x, seed=None):
        batch = x.shape[:-1]
        rest = self.normal.sample(n * batch.numel(), seed + 17).reshape(n, *batch, 3)
        return self.model.mean(x) + self.shift + rest

    def log_prob(self, theta, x):
        return self.normal.log_prob(theta - self.model.mean(x) - self.shift)
