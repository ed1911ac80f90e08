// Every word and number that can be seen, and those that a line break splits. A word that is too long for any line, such
// as a path or a hash in provenance, may be split; so may a compound after its hyphen or slash, between two letters.
() => {
  const split = [];
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const element = node.parentElement;
    const unseen = element.closest('thead') && getComputedStyle(element.closest('thead')).clipPath !== 'none';
    if (unseen || !element.checkVisibility() || element.closest('svg, pre, code, dd, .gallery figcaption')) continue;
    for (const word of node.textContent.matchAll(/\S+/g)) {
      count += 1;
      for (const part of word[0].matchAll(/(?:[^-\/–—]|[-\/–—](?=\d))+[-\/–—]?/g)) {
        range.setStart(node, word.index + part.index);
        range.setEnd(node, word.index + part.index + part[0].length);
        const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
        if (lines.size > 1) split.push(`${word[0].slice(0, 60)} in ${element.tagName}`);
      }
    }
  }
  return [count, split];
}
