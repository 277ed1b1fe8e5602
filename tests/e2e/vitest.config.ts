import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['*.test.ts'],
    exclude: process.env.PARLEY_LONG ? [] : ['firefox.test.ts'], // `make long` installs Firefox
    globalSetup: ['./build.ts'],
    testTimeout: 180_000,
    hookTimeout: 180_000,
    fileParallelism: false, // two cores: nodes and browsers enough for one file at a time
  },
})
