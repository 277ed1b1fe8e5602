import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['*.test.ts'],
    globalSetup: ['../e2e/build.ts'],
    setupFiles: ['./node20.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
