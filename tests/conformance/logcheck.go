// logcheck reads a static log with Go's own transparency-log client, golang.org/x/mod/sumdb, and says whether it holds.
//
// The client is unchanged.  Three short adapters stand between it and the C2SP formats, none of which touches a hash:
// its tile paths ("tile/8/0/001") lose the height ("tile/0/001"), a checkpoint's three lines are read by themselves
// because ParseTree knows the name of one log only, and entries are taken out of C2SP bundles.
//
//	logcheck DIR VKEY [OLD-CHECKPOINT...] [RECEIPT.tlog-proof...]
//
// It opens the checkpoint's signature (note), recomputes the hash of every entry and finds it in the tiles
// (tlog.TileHashReader, which verifies each tile that it reads by the root), proves and checks some hundred records one
// by one and that the log continues each older checkpoint, and checks each receipt.  It prints what it did as JSON;
// anything wrong ends it with exit code 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

type report struct {
	Origin      string
	Size        int64
	Root        string
	Records     int64
	Proofs      int
	Tiles       int
	Consistency int
	Receipts    int
}

// folder serves tiles to the client: tlog.TileReader over files.
type folder struct {
	dir  string
	read map[string]bool
}

func (f *folder) Height() int { return height }

func (f *folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range tiles {
		path := adapt(tile)
		data, err := os.ReadFile(filepath.Join(f.dir, path))
		if err != nil {
			return nil, err
		}
		f.read[path] = true
		found = append(found, data)
	}
	return found, nil
}

func (f *folder) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

// adapt returns the C2SP path of a tile: the client's own without the height, and "entries" for "data".
func adapt(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
}

// open verifies a signed checkpoint and returns its tree and its origin.
func open(text []byte, verifier note.Verifier) (tlog.Tree, string) {
	opened, err := note.Open(text, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		log.Fatalf("not a checkpoint of %s: %q", verifier.Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	return tlog.Tree{N: size, Hash: root}, lines[0]
}

// records returns the entries of a log, out of its bundles.
func records(dir string, size int64) [][]byte {
	var found [][]byte
	for start := int64(0); start < size; start += 1 << height {
		width := size - start
		if width > 1<<height {
			width = 1 << height
		}
		tile := tlog.Tile{H: height, L: -1, N: start >> height, W: int(width)}
		data, err := os.ReadFile(filepath.Join(dir, adapt(tile)))
		check(err)
		for len(data) >= 2 {
			end := 2 + int(binary.BigEndian.Uint16(data))
			if end > len(data) {
				log.Fatalf("%s ends within an entry", adapt(tile))
			}
			found = append(found, data[2:end])
			data = data[end:]
		}
		if len(data) != 0 || int64(len(found)) != start+width {
			log.Fatalf("%s does not hold %d entries", adapt(tile), width)
		}
	}
	return found
}

// compare holds the hash of every entry against the tree, a tile at a time; the reader verifies each tile by the root.
func compare(entries [][]byte, reader tlog.HashReader) {
	for start := 0; start < len(entries); start += 1 << height {
		var places []int64
		for index := start; index < len(entries) && index < start+1<<height; index++ {
			places = append(places, tlog.StoredHashIndex(0, int64(index)))
		}
		hashes, err := reader.ReadHashes(places)
		check(err)
		for at, hash := range hashes {
			if hash != tlog.RecordHash(entries[start+at]) {
				log.Fatalf("entry %d is not what the tree holds", start+at)
			}
		}
	}
}

// probes returns the entries whose proofs are checked one by one: the ends of some tiles, and every 997th.
func probes(size int64) []int64 {
	var found []int64
	for index := int64(0); index < size; index++ {
		edge := index%256 == 0 || index%256 == 255
		if index < 8 || index >= size-8 || index%997 == 0 || edge && (index>>height)%64 < 2 {
			found = append(found, index)
		}
	}
	return found
}

// receipt checks a C2SP tlog-proof whose extra line is the entry.
func receipt(text string, verifier note.Verifier) {
	head, checkpoint, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "extra ") {
		log.Fatalf("not a receipt with an entry: %.80q", text)
	}
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	check(err)
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	check(err)
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		check(err)
		proof = append(proof, hash)
	}
	tree, _ := open([]byte(checkpoint), verifier)
	check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: logcheck DIR VKEY [OLD-CHECKPOINT...] [RECEIPT.tlog-proof...]")
	}
	dir := os.Args[1]
	verifier, err := note.NewVerifier(os.Args[2])
	check(err)
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	check(err)
	tree, origin := open(text, verifier)

	tiles := &folder{dir: dir, read: map[string]bool{}}
	reader := tlog.TileHashReader(tree, tiles)
	done := report{Origin: origin, Size: tree.N, Root: tree.Hash.String()}
	entries := records(dir, tree.N)
	compare(entries, reader)
	done.Records = int64(len(entries))
	for _, index := range probes(tree.N) {
		proof, err := tlog.ProveRecord(tree.N, index, reader)
		check(err)
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entries[index])))
		done.Proofs++
	}
	for _, path := range os.Args[3:] {
		text, err := os.ReadFile(path)
		check(err)
		if strings.HasSuffix(path, ".tlog-proof") {
			receipt(string(text), verifier)
			done.Receipts++
			continue
		}
		old, _ := open(text, verifier)
		proof, err := tlog.ProveTree(tree.N, old.N, reader)
		check(err)
		check(tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash))
		done.Consistency++
	}
	done.Tiles = len(tiles.read)
	check(json.NewEncoder(os.Stdout).Encode(done))
}
