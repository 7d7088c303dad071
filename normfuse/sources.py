"""The papers and programs that a methods paragraph names, once each."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A paper, book or program.

    Attributes
    ----------
    key : str
        In BibTeX.
    authors : tuple of str
        ``Family, Given``; ``others`` at the end if there are more.
    year : int
    title, where : str
        ``where``: journal, proceedings or publisher.
    doi, arxiv : str
        One of them at least, but for books and papers of old.

    Examples
    --------
    >>> print(SOURCES["agueh2011"].short)
    Agueh and Carlier (2011), doi:10.1137/100805741
    """

    key: str
    authors: tuple[str, ...]
    year: int
    title: str
    where: str
    doi: str = ""
    arxiv: str = ""

    @property
    def name(self) -> str:
        """Who and when."""
        families = [name.split(",")[0] for name in self.authors]
        who = families[0] if len(families) == 1 else " and ".join(families) if (
            len(families) == 2 and families[1] != "others") else f"{families[0]} et al."
        return f"{who} ({self.year})"

    @property
    def short(self) -> str:
        """As one writes it in a sentence, the first time."""
        found = f", doi:{self.doi}" if self.doi else f", arXiv:{self.arxiv}" if self.arxiv else ""
        return self.name + found

    @property
    def bibtex(self) -> str:
        """One entry.

        >>> print(SOURCES["holm1979"].bibtex)
        @article{holm1979,
          author = {Holm, Sture},
          title = {{A Simple Sequentially Rejective Multiple Test Procedure}},
          journal = {Scandinavian Journal of Statistics},
          year = {1979}
        }
        """
        paper = [("author", " and ".join(self.authors)), ("title", f"{{{self.title}}}"),
                 ("journal", self.where), ("year", str(self.year)), ("doi", self.doi),
                 *([("eprint", self.arxiv), ("archiveprefix", "arXiv")] if self.arxiv else [])]
        fields = ",\n".join(f"  {name} = {{{value}}}" for name, value in paper if value)
        return f"@article{{{self.key},\n{fields}\n}}"


_ALL = (
    Source("abraham2014", ("Abraham, Alexandre", "others"), 2014,
           "Machine learning for neuroimaging with scikit-learn", "Frontiers in Neuroinformatics",
           "10.3389/fninf.2014.00014"),
    Source("agueh2011", ("Agueh, Martial", "Carlier, Guillaume"), 2011,
           "Barycenters in the Wasserstein Space", "SIAM Journal on Mathematical Analysis",
           "10.1137/100805741"),
    Source("benjamini1995", ("Benjamini, Yoav", "Hochberg, Yosef"), 1995,
           "Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple "
           "Testing", "Journal of the Royal Statistical Society B",
           "10.1111/j.2517-6161.1995.tb02031.x"),
    Source("benjamini2001", ("Benjamini, Yoav", "Yekutieli, Daniel"), 2001,
           "The control of the false discovery rate in multiple testing under dependency",
           "Annals of Statistics", "10.1214/aos/1013699998"),
    Source("bingham2019", ("Bingham, Eli", "others"), 2019,
           "Pyro: Deep Universal Probabilistic Programming",
           "Journal of Machine Learning Research", arxiv="1810.09538"),
    Source("bishop2006", ("Bishop, Christopher M.",), 2006,
           "Pattern Recognition and Machine Learning", "Springer"),
    Source("brunner2000", ("Brunner, Edgar", "Munzel, Ullrich"), 2000,
           "The Nonparametric Behrens-Fisher Problem: Asymptotic Theory and a Small-Sample "
           "Approximation", "Biometrical Journal",
           "10.1002/(SICI)1521-4036(200001)42:1<17::AID-BIMJ17>3.0.CO;2-U"),
    Source("cao2014", ("Cao, Yanshuai", "Fleet, David J."), 2014,
           "Generalized Product of Experts for Automatic and Principled Fusion of Gaussian "
           "Process Predictions", "arXiv", arxiv="1410.7827"),
    Source("delon2021", ("Delon, Julie", "Gozlan, Nathael", "Saint-Dizier, Alexandre"), 2021,
           "Generalized Wasserstein barycenters between probability measures living on different "
           "subspaces", "arXiv", arxiv="2105.09755"),
    Source("freedman1983", ("Freedman, David", "Lane, David"), 1983,
           "A Nonstochastic Interpretation of Reported Significance Levels",
           "Journal of Business and Economic Statistics", "10.1080/07350015.1983.10509354"),
    Source("hedges1981", ("Hedges, Larry V.",), 1981,
           "Distribution Theory for Glass's Estimator of Effect Size and Related Estimators",
           "Journal of Educational Statistics", "10.3102/10769986006002107"),
    Source("hinton2002", ("Hinton, Geoffrey E.",), 2002,
           "Training Products of Experts by Minimizing Contrastive Divergence",
           "Neural Computation", "10.1162/089976602760128018"),
    Source("holm1979", ("Holm, Sture",), 1979,
           "A Simple Sequentially Rejective Multiple Test Procedure",
           "Scandinavian Journal of Statistics"),
    Source("hotelling1931", ("Hotelling, Harold",), 1931, "The Generalization of Student's Ratio",
           "Annals of Mathematical Statistics", "10.1214/aoms/1177732979"),
    Source("jones2009", ("Jones, M. C.", "Pewsey, Arthur"), 2009, "Sinh-arcsinh distributions",
           "Biometrika", "10.1093/biomet/asp053"),
    Source("kim2018", ("Kim, Yoon", "others"), 2018, "Semi-Amortized Variational Autoencoders",
           "Proceedings of the International Conference on Machine Learning", arxiv="1802.02550"),
    Source("kingma2014", ("Kingma, Diederik P.", "Welling, Max"), 2014,
           "Auto-Encoding Variational Bayes",
           "International Conference on Learning Representations", arxiv="1312.6114"),
    Source("lawryaguila2023", ("Lawry Aguila, Ana", "Chapman, James", "Altmann, Andre"), 2023,
           "Multi-modal Variational Autoencoders for Normative Modelling Across Multiple Imaging "
           "Modalities", "Medical Image Computing and Computer Assisted Intervention",
           "10.1007/978-3-031-43907-0_41"),
    Source("liu2024", ("Liu, Tianyi", "Tan, Zhaorui", "Chen, Muyin", "Yang, Xi",
                       "Jiang, Haochuan", "Huang, Kaizhu"), 2024,
           "MedMAP: Promoting Incomplete Multi-modal Brain Tumor Segmentation with Alignment",
           "arXiv", arxiv="2408.09465"),
    Source("mackinnon1985", ("MacKinnon, James G.", "White, Halbert"), 1985,
           "Some heteroskedasticity-consistent covariance matrix estimators with improved finite "
           "sample properties", "Journal of Econometrics", "10.1016/0304-4076(85)90158-7"),
    Source("mann1947", ("Mann, H. B.", "Whitney, D. R."), 1947,
           "On a Test of Whether one of Two Random Variables is Stochastically Larger than the "
           "Other", "Annals of Mathematical Statistics", "10.1214/aoms/1177730491"),
    Source("newcombe1998", ("Newcombe, Robert G.",), 1998,
           "Interval estimation for the difference between independent proportions: comparison of "
           "eleven methods", "Statistics in Medicine",
           "10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I"),
    Source("paszke2019", ("Paszke, Adam", "others"), 2019,
           "PyTorch: An Imperative Style, High-Performance Deep Learning Library",
           "Advances in Neural Information Processing Systems", arxiv="1912.01703"),
    Source("qiu2025", ("Qiu, Peijie", "others"), 2025,
           "Multimodal Variational Autoencoder: A Barycentric View",
           "Proceedings of the AAAI Conference on Artificial Intelligence",
           "10.1609/aaai.v39i19.34209", "2412.20487"),
    Source("seabold2010", ("Seabold, Skipper", "Perktold, Josef"), 2010,
           "statsmodels: Econometric and Statistical Modeling with Python",
           "Proceedings of the 9th Python in Science Conference", "10.25080/Majora-92bf1922-011"),
    Source("shi2019", ("Shi, Yuge", "Siddharth, N.", "Paige, Brooks", "Torr, Philip H. S."), 2019,
           "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models",
           "Advances in Neural Information Processing Systems", arxiv="1911.03393"),
    Source("smyth2004", ("Smyth, Gordon K.",), 2004,
           "Linear Models and Empirical Bayes Methods for Assessing Differential Expression in "
           "Microarray Experiments", "Statistical Applications in Genetics and Molecular Biology",
           "10.2202/1544-6115.1027"),
    Source("sonderby2016", ("Sønderby, Casper Kaae", "others"), 2016,
           "Ladder Variational Autoencoders", "Advances in Neural Information Processing Systems",
           arxiv="1602.02282"),
    Source("sundararajan2001", ("Sundararajan, S.", "Keerthi, S. Sathiya"), 2001,
           "Predictive Approaches for Choosing Hyperparameters in Gaussian Processes",
           "Neural Computation", "10.1162/08997660151134343"),
    Source("sutter2021", ("Sutter, Thomas M.", "Daunhawer, Imant", "Vogt, Julia E."), 2021,
           "Generalized Multimodal ELBO", "International Conference on Learning Representations",
           arxiv="2105.02470"),
    Source("virtanen2020", ("Virtanen, Pauli", "others"), 2020,
           "SciPy 1.0: fundamental algorithms for scientific computing in Python",
           "Nature Methods", "10.1038/s41592-019-0686-2"),
    Source("winkler2014", ("Winkler, Anderson M.", "others"), 2014,
           "Permutation inference for the general linear model", "NeuroImage",
           "10.1016/j.neuroimage.2014.01.060"),
    Source("wolfers2018", ("Wolfers, Thomas", "others"), 2018,
           "Mapping the Heterogeneous Phenotype of Schizophrenia and Bipolar Disorder Using "
           "Normative Models", "JAMA Psychiatry", "10.1001/jamapsychiatry.2018.2467"),
    Source("wu2018", ("Wu, Mike", "Goodman, Noah"), 2018,
           "Multimodal Generative Models for Scalable Weakly-Supervised Learning",
           "Advances in Neural Information Processing Systems", arxiv="1802.05335"),
)
SOURCES = {source.key: source for source in _ALL}
