import type { Page } from 'playwright-core'

/** A text on the page: how it stands out from what is behind it (WCAG 2.2, 1.4.3). */
export interface Contrast {
  text: string
  where: string
  colour: string
  behind: string
  ratio: number
}

/** Measures every text that can be seen, placeholders among them, by its computed colours. */
export function contrasts(page: Page): Promise<Contrast[]> {
  return page.evaluate(() => {
    type Colour = [red: number, green: number, blue: number, alpha: number]
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })!
    const parse = (css: string): Colour => {
      canvas.clearRect(0, 0, 1, 1)
      canvas.fillStyle = css
      canvas.fillRect(0, 0, 1, 1)
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data
      return [r!, g!, b!, a! / 255]
    }
    const over = (top: Colour, below: Colour): Colour => {
      const mix = (i: 0 | 1 | 2) => top[i] * top[3] + below[i] * (1 - top[3])
      return [mix(0), mix(1), mix(2), 1]
    }
    const luminance = (c: Colour) => {
      const part = (v: number) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      return 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2])
    }
    const behind = (element: Element | null): Colour => {
      if (!element) return parse('Canvas')
      const own = parse(getComputedStyle(element).backgroundColor)
      return own[3] === 1 ? own : over(own, behind(element.parentElement))
    }
    const opacity = (element: Element | null): number => (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1)
    const measure = (text: string, element: Element, style: CSSStyleDeclaration): Contrast => {
      const back = behind(element)
      const colour = parse(style.color)
      colour[3] *= opacity(element) * (style === getComputedStyle(element) ? 1 : Number(style.opacity))
      const [light, dark] = [luminance(over(colour, back)), luminance(back)].sort((a, b) => b - a) as [number, number]
      const id = element.id ? `#${element.id}` : ''
      return { text: text.slice(0, 40), where: `${element.tagName.toLowerCase()}${id}.${element.className}`, colour: style.color, behind: back.join(), ratio: (light + 0.05) / (dark + 0.05) }
    }
    const found: Contrast[] = []
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement!
      const text = walker.currentNode.textContent!.trim()
      if (text && element.checkVisibility({ visibilityProperty: true }) && !element.closest('.hidden')) found.push(measure(text, element, getComputedStyle(element)))
    }
    for (const field of document.querySelectorAll<HTMLInputElement | HTMLTextAreaElement>('input, textarea')) {
      if (!field.checkVisibility()) continue
      if (field.value) found.push(measure(field.value, field, getComputedStyle(field)))
      if (field.placeholder) found.push(measure(field.placeholder, field, getComputedStyle(field, '::placeholder')))
    }
    return found
  })
}
