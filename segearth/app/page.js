// The map of the page: what is switched or faded in the browser. One listener for all maps, since Gradio puts each
// new one in the place of the last.
document.addEventListener('input', ({target}) => {
  const view = target.closest('.map-view');
  if (!view) return;
  const layers = view.querySelector('.layers');
  const all = view.querySelector('thead input');
  const boxes = [...view.querySelectorAll('tbody input')];
  if (target.type === 'range') layers.style.opacity = target.value / 100;
  if (target === all) boxes.forEach(box => { box.checked = all.checked; });
  all.checked = boxes.every(box => box.checked);
  all.indeterminate = !all.checked && boxes.some(box => box.checked);
  for (const layer of layers.children) layer.hidden = !boxes[layer.dataset.class].checked;
});

document.addEventListener('click', ({target}) => {
  const view = target.closest('.map-view button') && target.closest('.map-view');
  if (!view) return;
  document.fullscreenElement ? document.exitFullscreen() : view.requestFullscreen();
});

// Puts a text, unless it is empty, into the clipboard and says whether it is there now. Pages of other machines without
// TLS have the old way only.
window.copyText = async (text) => {
  if (!text) return false;
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.body.appendChild(document.createElement('textarea'));
    field.value = text;
    field.select();
    const isCopied = document.execCommand('copy');
    field.remove();
    return isCopied;
  }
};
