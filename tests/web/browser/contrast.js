// Returns the texts whose contrast with their ground is below 4.5 (WCAG 2.1, 1.4.3).
() => {
  const numbers = (text) => text.match(/[\d.]+/g).map(Number);
  const share = (part) => (part <= 10 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([red, green, blue]) => 0.2126 * share(red) + 0.7152 * share(green) + 0.0722 * share(blue);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const ratio = (element) => {
    const both = [numbers(getComputedStyle(element).color), ground(element)].map(light);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };
  const texts = "p, label, legend, small, h1, h2, h3, h4, button, figcaption, summary, select, textarea, .value, .name, .token";
  return [...document.querySelectorAll(texts)]
    .filter((one) => one.checkVisibility() && one.textContent.trim() && ratio(one) < 4.5)
    .map((one) => [ratio(one), one.textContent.slice(0, 30)]);
}
