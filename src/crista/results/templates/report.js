for (const slider of document.querySelectorAll(".slider input")) {
  const example = slider.closest(".example");
  const show = () => {
    example.querySelectorAll(".panels").forEach((panels, index) => { panels.hidden = index !== Number(slider.value); });
    example.querySelector("output").textContent = example.querySelectorAll(".panels")[slider.value].dataset.title;
  };
  slider.closest(".slider").hidden = false;
  slider.addEventListener("input", show);
}
for (const picture of document.querySelectorAll(".panel img")) {
  picture.addEventListener("click", () => {
    const index = [...picture.closest(".panels").children].indexOf(picture.closest(".panel"));
    const large = !picture.closest(".panel").classList.contains("large");
    for (const panels of picture.closest(".example").querySelectorAll(".panels")) {
      [...panels.children].forEach((panel, at) => panel.classList.toggle("large", large && at === index));
    }
  });
}
