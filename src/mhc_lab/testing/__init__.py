"""The laws that constraints and variants keep, to be run on those of one's own: `mhc-lab check my_variant.py`.

From Python: `broken(examine("spectral_ball"))`, or, in a test of one's own,

    @pytest.mark.parametrize("law", testing.laws("spectral_ball"), ids=str)
    def test_laws(law):
        law.hold()
"""

from mhc_lab.testing.examine import Case, broken, examine, laws
from mhc_lab.testing.law import Broken, DoesNotApply, Finding, Law

__all__ = ["Broken", "Case", "DoesNotApply", "Finding", "Law", "broken", "examine", "laws"]
