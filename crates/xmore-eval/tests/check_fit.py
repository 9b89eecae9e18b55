"""The constants in the tests of src/fit, by scipy: `pip install numpy==2.4.6 scipy==1.17.1`, then run this by hand."""
import numpy as np
import scipy
from scipy.optimize import brentq
from scipy.stats import binom

assert (np.__version__, scipy.__version__) == ("2.4.6", "1.17.1"), (np.__version__, scipy.__version__)

PRIOR = 4.0


def temperature(scores, truth):
    """1 / β where Σ (E l − l_y) + PRIOR (β − 1) = 0, between T = 0.05 and T = 20."""
    logs = np.log(scores)

    def slope(beta):
        p = np.exp(beta * logs)
        p /= p.sum(1, keepdims=True)
        return ((p * logs).sum(1) - logs[np.arange(len(truth)), truth]).sum() + PRIOR * (beta - 1.0)

    return 1.0 / brentq(slope, 0.05, 20.0, xtol=1e-15, rtol=1e-14)


i, c = np.arange(40)[:, None], np.arange(4)[None, :]
weights = ((i * 7 + c * 5) % 11 + 1).astype(float)
truth = np.array([weights[n].argmax() if n % 3 else (n // 3) % 4 for n in range(40)])
print("as_scipy_finds_it", repr(temperature(weights / weights.sum(1, keepdims=True), truth)))
for k, n, p in [(0, 10, 0.1), (3, 100, 0.1), (12, 500, 0.05)]:
    print("the_binomial_is_scipys", k, n, p, repr(binom.cdf(k, n, p)))
