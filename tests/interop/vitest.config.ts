import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['*.test.ts'],
    globalSetup: ['../e2e/build.ts'],
    setupFiles: ['./node20.ts'],
    testTimeout: 180_000,
    hookTimeout: 180_000,
  },
})
