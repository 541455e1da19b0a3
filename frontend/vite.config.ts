// Builds the GraphiQL page into dist/, each larger text file beside its gzipped copy.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { defineConfig, type Plugin } from 'vite';

const WORTH_COMPRESSING = 1400; // bytes: less fits one network packet anyway

// The server sends these copies as they are, so it never compresses a megabyte while it has bars to serve.
const gzippedCopies: Plugin = {
  name: 'gzipped-copies',
  apply: 'build',
  async writeBundle({ dir }, bundle) {
    for (const output of Object.values(bundle)) {
      const content = Buffer.from(output.type === 'chunk' ? output.code : output.source);
      if (content.length < WORTH_COMPRESSING || !/\.(js|css|html|svg|ttf)$/.test(output.fileName)) continue;
      await writeFile(join(dir!, `${output.fileName}.gz`), gzipSync(content, { level: 9 }));
    }
  },
};

export default defineConfig({
  base: '/graphiql/',
  plugins: [gzippedCopies],
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 5000, // Monaco is what it is
    rolldownOptions: {
      input: 'graphiql.html',
      checks: { moduleLevelDirective: false }, // a hundred times "use client", which means nothing here
    },
  },
});
