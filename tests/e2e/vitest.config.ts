import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['*.test.ts'],
    globalSetup: ['./build.ts'],
    testTimeout: 180_000,
    hookTimeout: 180_000,
    fileParallelism: false, // two cores: nodes and browsers enough for one file at a time
  },
})
