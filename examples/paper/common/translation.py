"""Translation: batches of sentence pairs, label-smoothed cross-entropy, beam search, and BLEU by sacrebleu."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .iwslt import EOS, PAD, Corpus, Sentences
from .recipe import Recipe

Pairs = list[tuple[list[int], list[int]]]
POOL = 50  # batches whose sentences are sorted by length together


class TranslationRecipe(Recipe):
    """Translate --data (common/iwslt.py). --batch counts sentences; BLEU is of the test set, when the run is over.

    BLEU is sacrebleu's, of the tokens in the files with byte-pair pieces joined. The papers do not name their tokens.
    """

    metric = "bleu"
    smoothing = 0.1
    clip = None

    def __init__(self, args, place) -> None:
        super().__init__(args, place)
        self.corpus = Corpus(args.data)
        fits = lambda pair: all(0 < len(side) <= args.max_length for side in pair)
        self.training = [pair for pair in self.corpus.pairs["train"] if fits(pair)]
        self.per_epoch = len(self.training) // args.batch
        if not self.per_epoch:
            raise SystemExit(f"error: --batch {args.batch} is more than the {len(self.training)} training sentences")
        self.plan(self.per_epoch, args.eval_every)

    @classmethod
    def add_options(cls, parser) -> None:
        super().add_options(parser)
        parser.add_argument("--max-length", type=int, default=175, help="tokens of a sentence, in training and search")
        parser.add_argument("--eval-every", type=int, help="steps between evaluations; default: an epoch")
        parser.add_argument("--beams", type=int, default=5)
        parser.add_argument("--alpha", type=float, default=0.6, help="of the length penalty")
        parser.add_argument("--layers", type=int, help="of the encoder, and of the decoder")
        parser.add_argument("--width", type=int, default=512)
        parser.add_argument("--feed-forward", type=int, default=2048)
        parser.add_argument("--heads", type=int, default=8)
        parser.add_argument("--dropout", type=float, default=0.1)

    def batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(source, target), padded (sentences, tokens), both with their end, from step `first` on."""
        epoch, within = divmod(first, self.per_epoch)
        size = self.args.batch
        while True:
            generator = self.generator(1, epoch)
            order = torch.randperm(len(self.training), generator=generator).tolist()[: self.per_epoch * size]
            length = lambda i: len(self.training[i][0]) + len(self.training[i][1])
            pools = [order[i : i + POOL * size] for i in range(0, len(order), POOL * size)]
            ordered = [i for pool in pools for i in sorted(pool, key=length)]
            for number in torch.randperm(self.per_epoch, generator=generator).tolist()[within:]:
                chosen = ordered[number * size : (number + 1) * size][self.place.rank :: self.place.world]
                yield self._batch([self.training[i] for i in chosen])
            epoch, within = epoch + 1, 0

    def _batch(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        sides = zip(*pairs, strict=True)
        source, target = (padded([[*sentence, EOS] for sentence in side]).to(self.place.device) for side in sides)
        return source, target

    def logits(self, network: nn.Module, source: Tensor, target: Tensor) -> Tensor:
        """(sentences, tokens, vocabulary), at each token of what comes next in `target`, of what stands before it."""
        raise NotImplementedError

    def translate(self, model: nn.Module, source: Tensor) -> Sentences:
        raise NotImplementedError

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Label-smoothed cross-entropy a token."""
        logits = self.logits(network, *batch).flatten(0, 1).float()
        return F.cross_entropy(logits, batch[1].flatten(), ignore_index=PAD, label_smoothing=self.smoothing)

    def evaluate(self, model: nn.Module, final: bool) -> dict[str, float]:
        """Perplexity a token of the validation text, and in the end BLEU of the test text."""
        total, count = 0.0, 0
        for pairs in self._shares("valid"):
            source, target = self._batch(pairs)
            logits = self.logits(model, source, target).flatten(0, 1).float()
            total += float(F.cross_entropy(logits, target.flatten(), ignore_index=PAD, reduction="sum"))
            count += int((target != PAD).sum())
        total, count = self.place.sum(total, count)
        results = {"valid_perplexity": math.exp(min(total / count, 700.0))}
        return results | {"bleu": self._bleu(model)} if final else results

    def _shares(self, part: str) -> Iterator[Pairs]:
        mine = self.corpus.pairs[part][self.place.rank :: self.place.world]
        return (mine[i : i + 64] for i in range(0, len(mine), 64))

    def _bleu(self, model: nn.Module) -> float:
        import sacrebleu  # the extra `paper`

        written = [self.translate(model, self._batch(pairs)[0]) for pairs in self._shares("test")]
        shares = self.place.gather([self.corpus.words(numbers) for part in written for numbers in part])
        sentences = [""] * sum(len(share) for share in shares)
        for rank, share in enumerate(shares):
            sentences[rank :: self.place.world] = share
        return sacrebleu.corpus_bleu(sentences, [self.corpus.references], tokenize="none", force=True).score


def padded(sentences: Sentences) -> Tensor:
    """(sentences, tokens), with `PAD` after the shorter ones."""
    longest = max(len(sentence) for sentence in sentences)
    return torch.tensor([sentence + [PAD] * (longest - len(sentence)) for sentence in sentences])


def beam_search(
    next_scores: Callable[[Tensor], Tensor], rows: int, beams: int, alpha: float, longest: int, device: torch.device
) -> Sentences:
    """The sentences of the highest log-probability / ((5 + length) / 6)^alpha that a beam search finds.

    Args:
        next_scores: log-probabilities (rows * beams, vocabulary) of what comes after prefixes (rows * beams, tokens),
            which begin with `EOS`.
        longest: tokens of a sentence, its end included; where it is reached, the sentence ends.

    Source: Wu et al. 2016, "Google's neural machine translation system", equation 14 (its length penalty).
    """
    prefixes = torch.full((rows, beams, 1), EOS, device=device)
    scores = torch.full((rows, beams), -math.inf, device=device)
    scores[:, 0] = 0.0  # all beams begin alike: only one of them counts
    best: list[tuple[float, list[int]]] = [(-math.inf, [])] * rows
    for length in range(1, longest + 1):
        step = next_scores(prefixes.flatten(0, 1)).view(rows, beams, -1).float()
        if length == longest:
            step = step.where(torch.arange(step.shape[2], device=device) == EOS, -math.inf)
        totals = scores[:, :, None] + step
        ended, parents = totals[:, :, EOS].max(1)
        for row, (score, parent) in enumerate(zip(ended.tolist(), parents.tolist(), strict=True)):
            score /= ((5 + length) / 6) ** alpha
            if score > best[row][0]:
                best[row] = score, prefixes[row, parent, 1:].tolist()
        totals[:, :, EOS] = -math.inf
        scores, chosen = totals.flatten(1).topk(beams)
        bound = (scores[:, 0] / ((5 + longest) / 6) ** alpha).tolist()  # no sentence still open can end above it
        if all(top >= most for (top, _), most in zip(best, bound, strict=True)):
            break
        parent, token = chosen // step.shape[2], chosen % step.shape[2]
        kept = prefixes.gather(1, parent[:, :, None].expand(-1, -1, length))
        prefixes = torch.cat([kept, token[:, :, None]], 2)
    return [sentence for _, sentence in best]
