# From what `cargo metadata` says to SPDX 2.3. `dist/sbom` has the arguments.

.resolve.root as $root
| (.packages | map({key: .id, value: .}) | from_entries) as $crates
| ($locked | split("\n") | map(split(" ") | {key: .[0], value: .[1]}) | from_entries) as $checksums
# Who uses whom, but for tests. What only takes part in the build is reached by a build script or a procedural macro.
| [.resolve.nodes[] | .id as $user | .deps[] | .pkg as $used
    | select(any(.dep_kinds[]; .kind != "dev"))
    | {user: $user, used: $used, linked: (any(.dep_kinds[]; .kind == null) and ($crates[$used].targets | any(.[].kind[]; . == "proc-macro") | not))}] as $uses
| def reached($from; $uses): $from | until(. as $known | all($uses[]; (.user | IN($known[]) | not) or (.used | IN($known[])));
      . as $known | $known + [$uses[] | select(.user | IN($known[])) | .used] | unique);
  reached([$root]; $uses) as $all
| reached([$root]; [$uses[] | select(.linked)]) as $linked
| def id: "SPDXRef-Crate-" + ("\(.name)-\(.version)" | gsub("[^A-Za-z0-9.-]"; "-"));
  def relation($from; $type; $to): {spdxElementId: $from, relationshipType: $type, relatedSpdxElement: $to};
  def library($id; $name; $version; $license):
      {SPDXID: $id, name: $name, versionInfo: $version, downloadLocation: "NOASSERTION", filesAnalyzed: false,
       licenseConcluded: $license, licenseDeclared: $license, copyrightText: "NOASSERTION"};
  ($crates[$root].version) as $version
| "flock-\($version)-linux-\($arch)" as $name
| [$sums | split("\n")[] | split(" ") | {name: .[0], sha1: .[1], sha256: .[2]}] as $binaries
| [library("SPDXRef-Rust"; "rust-std"; $rustc; "MIT OR Apache-2.0"),
   library("SPDXRef-Glibc"; "glibc"; $glibc; "LGPL-2.1-or-later"),
   library("SPDXRef-Musl"; "musl"; $musl; "MIT"),
   library("SPDXRef-Libgcc"; "libgcc"; $gcc; "GPL-3.0-or-later WITH GCC-exception-3.1")] as $toolchain
| {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: $name,
    documentNamespace: "https://flock.fritzlab.net/spdx/\($name)/\($revision)",
    creationInfo: {created: $created, creators: ["Tool: flock-dist-\($version)"], comment: "from commit \($revision)"},
    packages: ([$crates[$all[]] | . as $crate | ("\(.name)@\(.version)") as $key
        | ((.license // "NOASSERTION") | gsub(" */ *"; " OR ")) as $license
        | library(id; .name; .version; $license)
        + {primaryPackagePurpose: (if .id == $root then "APPLICATION" else "LIBRARY" end)}
        + if $checksums[$key] then
              {checksums: [{algorithm: "SHA256", checksumValue: $checksums[$key]}],
               externalRefs: [{referenceCategory: "PACKAGE-MANAGER", referenceType: "purl", referenceLocator: "pkg:cargo/\($key)"}]}
          else {} end] + $toolchain | sort_by(.SPDXID)),
    files: [$binaries[] | {SPDXID: "SPDXRef-File-\(.name)", fileName: "./\(.name)", fileTypes: ["BINARY"],
        checksums: [{algorithm: "SHA1", checksumValue: .sha1}, {algorithm: "SHA256", checksumValue: .sha256}],
        licenseConcluded: "NOASSERTION", licenseInfoInFiles: ["NOASSERTION"], copyrightText: "NOASSERTION"}],
    relationships: (($crates[$root] | id) as $flock
        | [$binaries[] | relation("SPDXRef-DOCUMENT"; "DESCRIBES"; "SPDXRef-File-\(.name)"), relation("SPDXRef-File-\(.name)"; "GENERATED_FROM"; $flock)]
        + [$toolchain[] | relation($flock; "STATIC_LINK"; .SPDXID)]
        + [$uses[] | select(.user | IN($all[])) | ($crates[.user] | id) as $user | ($crates[.used] | id) as $used
            | if .linked and (.user | IN($linked[])) then relation($user; "STATIC_LINK"; $used)
              else relation($used; "BUILD_DEPENDENCY_OF"; $user) end]
        | unique)
  }
