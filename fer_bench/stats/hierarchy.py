"""One hierarchy of claims: a primary endpoint of each method, and secondary endpoints tested only behind it.

M methods share the level alpha equally. The primary endpoint of each is tested at alpha / M. If it is rejected, this
level passes to the K secondary endpoints of the same method, each of which is tested at alpha / (M K). So the
probability of one or more false rejections among all M (1 + K) hypotheses is at most alpha, however the tests depend on
each other. This is Bonferroni gatekeeping, the graph of Bretz et al. in which every primary hypothesis passes its whole
weight on to its own secondary ones in equal parts, and those pass on nothing.

An adjusted p-value is the smallest alpha at which a hypothesis is rejected. Beside it stands an interval at the level
of the same test, 1 - alpha / M or 1 - alpha / (M K). If a p-value lies below alpha exactly where the interval at the
level 1 - alpha excludes zero, then an adjusted p-value lies below alpha exactly where the hypothesis's interval and
that of its primary endpoint exclude zero. The intervals of all primary endpoints hold together with probability
1 - alpha or more, and so do those of all secondary ones.

References
----------
F. Bretz, W. Maurer, W. Brannath, M. Posch (2009), A graphical approach to sequentially rejective multiple test
procedures, Statistics in Medicine 28.
A. Dmitrienko, W. Offen, P. Westfall (2003), Gatekeeping strategies for clinical trials that do not require all primary
effects to be significant, Statistics in Medicine 22.
"""

from __future__ import annotations

from dataclasses import dataclass

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """The levels of all tests of a family.

    Attributes
    ----------
    methods : int
        M, the methods about which something may be claimed; with 0 nothing is tested.
    secondary : int
        K, the secondary endpoints of each method.
    alpha : float
        Probability of one or more false rejections in the whole family.
    """

    methods: int
    secondary: int
    alpha: float = ALPHA

    @property
    def primary_alpha(self) -> float:
        """The level at which every primary endpoint is tested."""
        return self.alpha / max(1, self.methods)

    @property
    def secondary_alpha(self) -> float:
        """The level at which every secondary endpoint is tested if its primary one has been rejected."""
        return self.primary_alpha / max(1, self.secondary)

    def adjusted_primary(self, p: float) -> float:
        """Adjusted p-value of a primary endpoint; a p-value that is NaN counts as 1."""
        return min(1.0, self.methods * p)

    def adjusted_secondary(self, primary: float, p: float) -> float:
        """Adjusted p-value of a secondary endpoint, from its own p-value and that of its primary endpoint."""
        return max(self.adjusted_primary(primary), min(1.0, self.methods * self.secondary * p))
