// One brain viewer a box, in a frame that may run its own script and nothing else. Libraries and
// the anatomy lie in the page once; the page of a map is put together when it is looked at.
"use strict";
(function () {
  var store = document.getElementById("viewer-pieces");
  if (!store) return;
  var pieces = JSON.parse(store.textContent);

  function start(box) {
    var frame = box.querySelector("iframe"), select = box.querySelector("select");
    var maps = JSON.parse(box.querySelector("script[type='application/json']").textContent);
    function show() {
      frame.srcdoc = maps[select ? select.value : 0].replace(/\u0001(\d+)\u0001/g,
        function (_, k) { return pieces[k]; });
    }
    if (select) select.addEventListener("change", show);
    box.hidden = false;
    // Only when it comes near: a dozen brains at once would make an old computer wait.
    var near = new IntersectionObserver(function (seen) {
      if (seen.some(function (entry) { return entry.isIntersecting; })) {
        near.disconnect();
        show();
      }
    }, {rootMargin: "400px"});
    near.observe(box);
  }
  document.querySelectorAll("[data-viewer]").forEach(start);
})();
