"""What a study is made of, without torch: space files, outcomes, the folder, the front, the finalists."""
